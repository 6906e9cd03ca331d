-- What of a job's run is kept, and why a job waits for disk.

-- A checkpoint with `removed_at` is seen by nobody; its row goes when its files have gone.
alter table checkpoints add column removed_at integer;
-- What only the run itself can go on from (the optimizer's moments): no longer needed, it is dropped and the model stays.
alter table checkpoints add column resume_state text not null default 'kept' check (resume_state in ('kept', 'dropping', 'dropped'));

create index checkpoints_removed on checkpoints (seq) where removed_at is not null;
create index checkpoints_dropping on checkpoints (seq) where resume_state = 'dropping';

-- Whether its job's retention has been applied since something of it has changed.
alter table runs add column is_tidied integer not null default 0 check (is_tidied in (0, 1));
-- When its files go by themselves; absent: never.
alter table runs add column remove_after integer;
-- Its files, the models in `checkpoints/` left aside.
alter table runs add column data text not null default 'kept' check (data in ('kept', 'removing', 'removed'));

create index runs_untidied on runs (seq) where is_tidied = 0 and job_id is not null;
create index runs_removed_after on runs (remove_after) where remove_after is not null and data = 'kept';
create index runs_removing on runs (seq) where data = 'removing';

-- The bytes of disk it waits for; null unless it is next and waits for them.
alter table jobs add column waits_for_disk_bytes integer;
