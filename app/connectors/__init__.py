"""The data source types, one file each, and what they share.

A file named like a type (`postgresql.py`, `kafka.py`, `s3.py` ...) holds that type; one that begins with a type's name
(`kafka_log.py`, `delta_schema.py`) is a part of it. The rest is shared:

    base, registry, failures, identity   what a type is, which there are, how work ends, what counts as the same place
    sandbox, child, frames, confinement  the processes in which it works
    dialling, http*, pinned_proxy, ssh   the only ways out
    files, webdav, object_store, ...     where files are
    file_rows, parquet_*, json_rows ...  rows in files and documents
    values, arrow_values, bson_values    values as JSON has them
"""
