-- Uploads in parts. The content of a part lies below `uploads/` of the data directory under the part's id; its row comes after it.
create table uploads (
    seq              integer primary key autoincrement,
    id               text    not null unique,
    filename         text    not null,
    purpose          text    not null,
    format           text,
    size_bytes       integer not null, -- what was announced: the parts must add up to it
    file_kept_for_s  integer,          -- how long the file will be kept; absent: until it is deleted
    status           text    not null check (status in ('pending', 'completed', 'cancelled', 'expired')),
    part_ids         text    not null default '[]', -- what it was completed with, in this order
    file_id          text,
    created_at       integer not null,
    expires_at       integer not null,
    owner            text,
    is_shared        integer not null default 0 check (is_shared in (0, 1))
) strict;

create index uploads_pending on uploads (owner, expires_at) where status = 'pending';

create table upload_parts (
    seq        integer primary key autoincrement,
    id         text    not null unique,
    upload_id  text    not null references uploads (id) on delete cascade,
    size_bytes integer not null,
    sha256     text    not null,
    created_at integer not null
) strict;

create index upload_parts_by_upload on upload_parts (upload_id, seq);

-- When a file goes by itself; absent: never.
alter table files add column expires_at integer;
create index files_expiring on files (expires_at) where expires_at is not null;

-- The job whose results a file holds. No foreign key: either may be deleted without the other.
alter table files add column result_of text;
create index files_by_result_of on files (result_of, seq) where result_of is not null;

-- What requests that make something were answered, so that the same request sent again makes nothing twice. `caller` is the user's
-- name, or empty where nobody is asked for a key. Without a status the request is still being worked on.
create table kept_replies (
    seq          integer primary key autoincrement,
    caller       text    not null,
    key          text    not null,
    fingerprint  text    not null, -- SHA-256 of route and body
    status       integer,
    content_type text,
    body         blob,
    created_at   integer not null,
    unique (caller, key)
) strict;

create index kept_replies_by_age on kept_replies (created_at);
