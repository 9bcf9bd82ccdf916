CREATE SCHEMA shop;
CREATE SCHEMA "odd.schema";
CREATE TYPE shop.mood AS ENUM ('glad', 'sad');
CREATE DOMAIN shop.inner_positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN shop.positive AS shop.inner_positive;
CREATE TYPE shop.pair AS ("left" integer, "right" text);

CREATE TABLE shop.orders (
    id bigint PRIMARY KEY,
    gone integer,
    name varchar(40),
    total numeric(12, 2) NOT NULL,
    at timestamptz,
    local timestamp,
    day date,
    clock timetz,
    took interval,
    ok boolean,
    ratio double precision,
    raw bytea,
    doc jsonb,
    nums numeric[],
    grid integer[],
    key uuid,
    mood shop.mood,
    plus shop.positive,
    pair shop.pair,
    span int4range,
    addr inet,
    spot point
);
ALTER TABLE shop.orders DROP COLUMN gone;
INSERT INTO shop.orders VALUES (
    9007199254740993, 'Zoë 李雷 🦆', 10.50, '2024-01-02 03:04:05.678901+02', '2024-01-02 03:04:05', '2024-01-02',
    '03:04:05+02', '1 day 2 hours', true, 0.1, '\x00ff', '{"a": [1, 2.5, null], "b": 9007199254740993}',
    '{1, 12345678901234567890.12, NULL}', '{{1,2},{3,4}}', '00000000-0000-0000-0000-000000000001', 'glad', 5,
    ROW(1, 'x'), '[1,5)', '10.0.0.1/24', '(1,2)'
);
INSERT INTO shop.orders (id, total, at, ratio) VALUES (2, -0.10, 'infinity', 'NaN');

CREATE TABLE shop.empty ();
CREATE TABLE shop.parts (id integer) PARTITION BY RANGE (id);
CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (10);
CREATE VIEW shop.recent AS SELECT id FROM shop.orders;
CREATE MATERIALIZED VIEW shop.totals AS SELECT sum(total) FROM shop.orders;
CREATE TABLE "odd.schema"."a ""b"".c" ("x y" integer);
INSERT INTO "odd.schema"."a ""b"".c" VALUES (7);

GRANT USAGE ON SCHEMA shop, "odd.schema" TO reader;
GRANT SELECT ON ALL TABLES IN SCHEMA shop, "odd.schema" TO reader;
