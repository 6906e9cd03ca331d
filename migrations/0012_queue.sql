-- The queue: who goes next, and what each has had of the devices.

-- What was asked for, and the class a job stands in while it waits: 0 low, 1 normal, 2 high. Waiting raises the class.
alter table jobs add column priority text not null default 'normal' check (priority in ('low', 'normal', 'high'));
alter table jobs add column class integer not null default 1 check (class in (0, 1, 2));
-- Since when the worker has seen it wait in this class; null unless it is queued.
alter table jobs add column class_since integer;
-- The bytes that must be free before it starts; null unless it is next and waits for memory.
alter table jobs add column waits_for_bytes integer;

create index jobs_waiting on jobs (class, owner, seq) where status = 'queued';
create index jobs_waiting_since on jobs (class_since) where status = 'queued';
-- How many jobs of one owner wait for whatever reason.
create index jobs_unfinished on jobs (owner) where status in ('validating_files', 'queued', 'paused');

-- Since when a run has its slot, and how many seconds its attempts had one before.
alter table runs add column slot_since integer;
alter table runs add column slot_seconds integer not null default 0;

-- Seconds of devices an owner has used, halved for every half-life since; as of `at`. The empty name is whoever has none.
create table device_use (
    owner   text    primary key,
    seconds real    not null,
    at      integer not null
) strict, without rowid;

-- Bytes on disk, summed per owner without reading the rows.
drop index files_by_owner;
create index files_by_owner on files (owner, seq, size_bytes);
create index checkpoints_sizes on checkpoints (job_id, size_bytes);
