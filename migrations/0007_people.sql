-- Whose everything is. What was made before there were keys, or without one, has no owner: it belongs to the team.

-- Keys are never deleted: what they did stays theirs.
create table api_keys (
    seq          integer primary key autoincrement,
    id           text    not null unique,
    user         text    not null,
    role         text    not null check (role in ('member', 'admin')),
    scope        text    not null check (scope in ('read', 'write')),
    digest       text    not null unique, -- SHA-256 of the key
    prefix       text    not null,
    created_at   integer not null,
    expires_at   integer,
    last_used_at integer,
    revoked_at   integer
) strict;

alter table files add column owner text;
alter table files add column is_shared integer not null default 0 check (is_shared in (0, 1));
alter table models add column owner text;
alter table models add column is_shared integer not null default 0 check (is_shared in (0, 1));
alter table reference_lists add column owner text;
alter table reference_lists add column is_shared integer not null default 0 check (is_shared in (0, 1));
alter table jobs add column owner text;
alter table jobs add column is_shared integer not null default 0 check (is_shared in (0, 1));

alter table exports add column owner text; -- who asked first; whoever sees the model sees the export

create index jobs_by_owner on jobs (owner, seq);
create index files_by_owner on files (owner, seq);

-- Who changed what. `subject` is the id in the address, or of what was made; never a content.
create table audit (
    seq        integer primary key autoincrement,
    at         integer not null,
    user       text,
    key_id     text,
    action     text    not null, -- method and route
    subject    text,
    status     integer not null, -- of the answer
    request_id text    not null
) strict;
