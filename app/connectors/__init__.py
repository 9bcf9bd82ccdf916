"""The data source types, and what they share.

    registry     which types there are
    contract/    what a type is
    values/      portable values
    network/     the only ways out
    files/       formats and stores
    processes/   where a type works, and what it cannot do there
    types/       the types themselves

`types -> files -> values, network -> contract` and `processes -> contract, registry`; no type imports a type, but
`delta_lake`, which reads tables in S3. The test of import rules holds it true.
"""
