"""Data between an agent and a media server, over HTTPS with certificates on both sides.

Must not decide who may do what: a token that the master signed says it. One half is `server`, with
what it consists of: `uploads`, `budget`, `bodies`, `answers`. The other is `client`: `calls`,
`connection`, `paths`, `rate`; `remote_runs` and `machine` use it. The halves share the page
docs/formats/transfer.md and nothing else but which status means what.
"""
