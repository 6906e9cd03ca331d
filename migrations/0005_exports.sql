-- Models written for other programs. A row that is `deleted` is seen by nobody; it goes when its files have gone, so that whatever
-- happens in between nothing stays on the disk that no row knows of.
create table exports (
    seq         integer primary key autoincrement,
    id          text    not null unique,
    model_id    text    not null, -- a name: the model may be deleted before the last file of its export
    format      text    not null check (format in ('huggingface', 'gguf')),
    dtype       text    not null check (dtype in ('float32', 'float16', 'bfloat16', 'q8_0')),
    status      text    not null check (status in ('pending', 'ready', 'error', 'deleted')),
    n_done      integer, -- weights written
    n_total     integer,
    result      text,
    error       text,
    created_at  integer not null,
    finished_at integer,
    check (status <> 'ready' or result is not null),
    check (status <> 'error' or error is not null)
) strict;

-- Who asks for the same again gets the same again.
create unique index exports_standing on exports (model_id, format, dtype) where status in ('pending', 'ready');
create index exports_by_model on exports (model_id, seq);
create index exports_pending on exports (seq) where status = 'pending';
create index exports_deleted on exports (seq) where status = 'deleted';

-- SQLite cannot change a check: the table is made anew, with a fourth kind of run.
create table new_runs (
    seq              integer primary key autoincrement,
    run_id           text    not null unique,
    job_id           text    unique references jobs (id) on delete cascade,
    model_id         text    unique references models (id) on delete cascade,
    inspection_id    text    unique references inspections (id) on delete cascade,
    export_id        text    unique references exports (id) on delete cascade,
    n_attempts       integer not null default 0,
    n_deaths         integer not null default 0, -- in a row, without a checkpoint between them
    lease_owner      text,
    lease_expires_at integer,
    events_offset    integer not null default 0, -- how far events.jsonl has been recorded
    stop_requested   text    check (stop_requested in ('pause', 'cancel')),
    slot             integer, -- the device it has while it is leased; only training needs one
    -- Where this attempt's training began: what the time left is reckoned from.
    since_step       integer,
    since_ms         integer,
    scores_offset    integer not null default 0, -- how far scores.out.jsonl has been recorded
    check ((job_id is not null) + (model_id is not null) + (inspection_id is not null) + (export_id is not null) = 1),
    check ((lease_owner is null) = (lease_expires_at is null))
) strict;

insert into new_runs (seq, run_id, job_id, model_id, inspection_id, n_attempts, n_deaths, lease_owner, lease_expires_at,
                      events_offset, stop_requested, slot, since_step, since_ms, scores_offset)
    select seq, run_id, job_id, model_id, inspection_id, n_attempts, n_deaths, lease_owner, lease_expires_at,
           events_offset, stop_requested, slot, since_step, since_ms, scores_offset from runs;
drop table runs;
alter table new_runs rename to runs;

create index runs_leased on runs (seq) where lease_owner is not null;
