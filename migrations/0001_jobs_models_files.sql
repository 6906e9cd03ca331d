-- Everything the service knows. All times are Unix seconds. `seq` is the order of creation: lists go by it, newest first.
-- Columns named after a record (`spec`, `info`, `report`, ...) hold that record of `src/domain` as JSON.

create table files (
    seq        integer primary key autoincrement,
    id         text    not null unique,
    filename   text    not null,
    purpose    text    not null,
    size_bytes integer not null,
    sha256     text    not null,
    status     text    not null check (status in ('uploaded', 'processed', 'error')),
    report     text,
    created_at integer not null
) strict;

create index files_by_purpose on files (purpose, seq);
-- After a restart the checks that were cut off are begun again.
create index files_unchecked on files (seq) where status = 'uploaded';

create table models (
    seq        integer primary key autoincrement,
    id         text    not null unique,
    source     text,             -- absent for a model that a job made
    job_id     text,             -- the job that made it
    base_id    text,             -- the model that job started from; a name, it may be deleted before this one
    status     text    not null check (status in ('pending', 'ready', 'error')),
    info       text,
    error      text,
    created_at integer not null,
    check (status <> 'ready' or info is not null),
    check (status <> 'error' or error is not null)
) strict;

create index models_pending on models (seq) where status = 'pending';
-- Before a model is deleted: is another one built on its weights?
create index models_by_weights on models (json_extract(info, '$.location.weights'));

create table reference_lists (
    seq         integer primary key autoincrement,
    id          text    not null unique,
    name        text    not null,
    "references" text   not null,
    created_at  integer not null
) strict;

create table jobs (
    seq               integer primary key autoincrement,
    id                text    not null unique,
    status            text    not null check (status in
        ('validating_files', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')),
    spec              text    not null,
    fine_tuned_model  text,
    error             text,
    n_trained_tokens  integer,
    evaluation_before text,
    evaluation_after  text,
    n_steps_done      integer,
    n_steps           integer,
    estimated_finish  integer,
    created_at        integer not null,
    started_at        integer,
    finished_at       integer
) strict;

create index jobs_by_status on jobs (status, seq);

-- What a job reads: asked before a file or a model is deleted, and when one becomes usable.
create table job_files (
    job_id  text not null references jobs (id) on delete cascade,
    file_id text not null,
    primary key (job_id, file_id)
) strict, without rowid;

create index job_files_by_file on job_files (file_id);

create table job_models (
    job_id   text not null references jobs (id) on delete cascade,
    model_id text not null,
    primary key (job_id, model_id)
) strict, without rowid;

create index job_models_by_model on job_models (model_id);

-- One execution of a job, or one registration of a model. It is made when it is first claimed and keeps its directory over
-- all its attempts. `lease_owner` is null while no process is meant to work on it.
create table runs (
    seq              integer primary key autoincrement,
    run_id           text    not null unique,
    job_id           text    unique references jobs (id) on delete cascade,
    model_id         text    unique references models (id) on delete cascade,
    n_attempts       integer not null default 0,
    n_deaths         integer not null default 0, -- in a row, without a checkpoint between them
    lease_owner      text,
    lease_expires_at integer,
    events_offset    integer not null default 0, -- how far events.jsonl has been recorded
    stop_requested   text    check (stop_requested in ('pause', 'cancel')),
    slot             integer, -- the device it has while it is leased; a registration needs none
    -- Where this attempt's training began: what the time left is reckoned from.
    since_step       integer,
    since_ms         integer,
    check ((job_id is null) <> (model_id is null)),
    check ((lease_owner is null) = (lease_expires_at is null))
) strict;

create index runs_leased on runs (seq) where lease_owner is not null;

-- The history of a job. `run_offset` is where the line stands in the run's events.jsonl; null for what the service itself
-- did. The unique pair is why reading a line twice changes nothing.
create table events (
    seq        integer primary key autoincrement,
    id         text    not null unique,
    job_id     text    not null references jobs (id) on delete cascade,
    run_id     text,
    run_offset integer,
    level      text    not null check (level in ('info', 'warn', 'error')),
    type       text    not null check (type in ('message', 'metrics')),
    message    text    not null,
    data       text,
    created_at integer not null,
    unique (run_id, run_offset)
) strict;

create index events_by_job on events (job_id, seq);

create table metrics (
    job_id  text    not null references jobs (id) on delete cascade,
    kind    text    not null check (kind in ('training', 'evaluation')),
    step    integer not null,
    "values" text   not null,
    primary key (job_id, kind, step)
) strict, without rowid;

create table checkpoints (
    seq        integer primary key autoincrement,
    id         text    not null unique,
    job_id     text    not null references jobs (id) on delete cascade,
    step       integer not null,
    directory  text    not null, -- its name below the run's checkpoints/
    model_id   text    not null,
    metrics    text    not null,
    size_bytes integer not null,
    created_at integer not null,
    unique (job_id, step)
) strict;

create index checkpoints_by_job on checkpoints (job_id, seq);
