-- What is kept of reference scores and what it has saved, told without counting millions of rows: the counts change with the
-- rows, in the same transaction.
alter table score_references add column n_scores integer not null default 0;
alter table score_files add column n_rows integer not null default 0;
update score_references set n_scores = (select count(*) from reference_scores where reference_id = id);
update score_files set n_rows = (select count(*) from score_file_rows where file_seq = seq);

-- Which jobs have used a reference's scores, and how many they were handed. A run says it once per attempt; the first counts.
create table score_uses (
    job_id       text    not null references jobs (id) on delete cascade,
    reference_id integer not null references score_references (id) on delete cascade,
    n_known      integer not null,
    used_at      integer not null,
    primary key (job_id, reference_id)
) strict, without rowid;

create index score_uses_by_reference on score_uses (reference_id);

-- Which uploads have the content that scores are kept for.
create index files_by_sha256 on files (sha256);

-- What a job's references have cost: ScoringCount.
alter table jobs add column reference_scores text;
