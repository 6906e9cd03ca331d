-- Questions that take a model's tokenizer or its weights, and are asked and answered within one request: what a model makes of a
-- pair. Each is a run of its own kind; the row goes with the answer.
create table inspections (
    seq        integer primary key autoincrement,
    id         text    not null unique,
    spec       text    not null, -- complete in itself
    status     text    not null check (status in ('pending', 'done', 'failed')),
    result     text,
    error      text,
    created_at integer not null,
    check (status <> 'done' or result is not null),
    check (status <> 'failed' or error is not null)
) strict;

create index inspections_pending on inspections (seq) where status = 'pending';

-- SQLite cannot change a check: the table is made anew, with a third kind of run.
create table new_runs (
    seq              integer primary key autoincrement,
    run_id           text    not null unique,
    job_id           text    unique references jobs (id) on delete cascade,
    model_id         text    unique references models (id) on delete cascade,
    inspection_id    text    unique references inspections (id) on delete cascade,
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
    check ((job_id is not null) + (model_id is not null) + (inspection_id is not null) = 1),
    check ((lease_owner is null) = (lease_expires_at is null))
) strict;

insert into new_runs (seq, run_id, job_id, model_id, n_attempts, n_deaths, lease_owner, lease_expires_at, events_offset,
                      stop_requested, slot, since_step, since_ms, scores_offset)
    select seq, run_id, job_id, model_id, n_attempts, n_deaths, lease_owner, lease_expires_at, events_offset,
           stop_requested, slot, since_step, since_ms, scores_offset from runs;
drop table runs;
alter table new_runs rename to runs;

create index runs_leased on runs (seq) where lease_owner is not null;
