import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import DBAPIError

from holdfast.base.errors import NoPermission, Unsupported

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

PARTITIONS = 8

SCHEMA = """
CREATE SCHEMA file_rows;

CREATE TABLE file_rows.sets (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source integer NOT NULL,
    generation integer NOT NULL,
    UNIQUE (source, generation)
);

CREATE TABLE file_rows.points (
    file_set integer NOT NULL,
    sequence integer NOT NULL,
    image text NOT NULL,
    pool text NOT NULL,
    number bigint NOT NULL,
    started_ns bigint NOT NULL,
    PRIMARY KEY (file_set, sequence),
    UNIQUE (file_set, image)
);

CREATE TABLE file_rows.names (
    file_set integer NOT NULL,
    id integer NOT NULL,
    name bytea NOT NULL,
    folded text COLLATE "C" NOT NULL
) PARTITION BY HASH (file_set);

CREATE TABLE file_rows.directories (
    file_set integer NOT NULL,
    id integer NOT NULL,
    parent integer NOT NULL,
    name integer NOT NULL
) PARTITION BY HASH (file_set);

CREATE TABLE file_rows.versions (
    size bigint NOT NULL,
    mtime_ns bigint NOT NULL,
    inode bigint NOT NULL,
    file_set integer NOT NULL,
    directory integer NOT NULL,
    name integer NOT NULL,
    first integer NOT NULL,
    last integer NOT NULL,
    mode integer NOT NULL,
    uid integer NOT NULL,
    gid integer NOT NULL,
    kind smallint NOT NULL
) PARTITION BY HASH (file_set);
"""

# Room in each page of versions for the new state of a row whose end changes: no index knows of
# ends, so that such a change stays in its page.
PARTITION = """
CREATE TABLE file_rows.names_{n} PARTITION OF file_rows.names
    FOR VALUES WITH (MODULUS {of}, REMAINDER {n});
CREATE TABLE file_rows.directories_{n} PARTITION OF file_rows.directories
    FOR VALUES WITH (MODULUS {of}, REMAINDER {n});
CREATE TABLE file_rows.versions_{n} PARTITION OF file_rows.versions
    FOR VALUES WITH (MODULUS {of}, REMAINDER {n}) WITH (fillfactor = 95);
"""

# New names are gathered, up to 16 MiB of them, before they are sorted into a search index.
INDEXES = """
ALTER TABLE file_rows.names ADD PRIMARY KEY (file_set, id);
CREATE UNIQUE INDEX names_by_name ON file_rows.names (file_set, name);
CREATE INDEX names_search ON file_rows.names
    USING gin (folded {trigrams}.gin_trgm_ops) WITH (gin_pending_list_limit = 16384);
ALTER TABLE file_rows.directories ADD PRIMARY KEY (file_set, id);
CREATE UNIQUE INDEX directories_by_parent ON file_rows.directories (file_set, parent, name);
CREATE INDEX directories_by_name ON file_rows.directories (file_set, name);
ALTER TABLE file_rows.versions ADD PRIMARY KEY (file_set, directory, name, first);
CREATE INDEX versions_by_name ON file_rows.versions (file_set, name);
"""

# What was in files beside such a database is fed again into its tables.
START_AGAIN = """
UPDATE sources SET generation = 0;
UPDATE images SET catalog_state = 'pending', catalog_detail = NULL
    WHERE catalog_state IN ('indexed', 'failed');
"""


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    encoding = connection.scalar(sa.text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise Unsupported(
            f"the database's encoding is {encoding}; names of files need UTF8",
            "make the database with: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )
    trigrams = _schema_of_trigrams(connection)
    parts = "".join(PARTITION.format(n=n, of=PARTITIONS) for n in range(PARTITIONS))
    script = SCHEMA + parts + INDEXES.format(trigrams=trigrams) + START_AGAIN
    for statement in filter(str.strip, script.split(";")):
        connection.exec_driver_sql(statement)


def _schema_of_trigrams(connection: sa.Connection) -> str:
    where = sa.text(
        "SELECT quote_ident(nspname) FROM pg_extension e "
        "JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'pg_trgm'"
    )
    if connection.scalar(where) is None:
        _make_extension(connection)
    return str(connection.scalar(where))


def _make_extension(connection: sa.Connection) -> None:
    known = connection.scalar(
        sa.text("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_trgm'")
    )
    if not known:
        raise Unsupported(
            "the database's server has no extension pg_trgm, which searching names needs",
            "install PostgreSQL's contributed extensions there; "
            "Debian has them in postgresql-15, others in postgresql-contrib",
        )
    try:
        connection.exec_driver_sql("CREATE EXTENSION pg_trgm")
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != "42501":
            raise
        raise NoPermission(
            "the database's user may not make the extension pg_trgm, which searching names needs",
            "as an administrator of the server, once, in this database: CREATE EXTENSION pg_trgm; "
            "or: GRANT CREATE ON DATABASE … TO the user",
        ) from error
