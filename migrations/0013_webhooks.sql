-- Webhooks: addresses that are told when a job has ended, and what was sent to them.

-- `secret` signs what is sent, so that it is kept as it is and not as a digest; no answer has it but the one that made it.
create table webhooks (
    seq                 integer primary key autoincrement,
    id                  text    not null unique,
    name                text    not null,
    url                 text    not null,
    event_types         text    not null, -- JSON: what it is told of
    secret              text    not null,
    old_secret          text,             -- signs beside the other until its time is over
    old_secret_until    integer,
    disabled_at         integer,
    disabled_reason     text,
    created_at          integer not null,
    updated_at          integer not null,
    owner               text,
    is_shared           integer not null default 0 check (is_shared in (0, 1)),
    check ((old_secret is null) = (old_secret_until is null)),
    check ((disabled_at is null) = (disabled_reason is null))
) strict;

create index webhooks_by_owner on webhooks (owner);

-- What is to be sent, or was: one event to one webhook. The event's id follows from the job and its end, so that nothing can be sent under
-- two ids. No foreign key to jobs: a delivery tells of one, it does not hold it.
create table webhook_deliveries (
    seq             integer primary key autoincrement,
    event_id        text    not null,
    webhook_id      text    not null references webhooks (id) on delete cascade,
    event_type      text    not null,
    job_id          text,                       -- null: a test, about no job
    status          text    not null check (status in ('pending', 'delivered', 'failed')),
    n_attempts      integer not null default 0, -- counted when one begins: one that is broken off counts
    next_attempt_at integer not null,           -- while it is pending
    claimed_at      integer,                    -- since when an attempt is under way
    status_code     integer,                    -- of the last answer
    error           text,                       -- what was wrong with the last attempt, in words
    created_at      integer not null,
    ended_at        integer,
    unique (event_id, webhook_id),
    check ((status = 'pending') = (ended_at is null))
) strict;

create index webhook_deliveries_due on webhook_deliveries (next_attempt_at) where status = 'pending';
create index webhook_deliveries_claimed on webhook_deliveries (webhook_id, claimed_at) where claimed_at is not null;
create index webhook_deliveries_by_webhook on webhook_deliveries (webhook_id, seq);
create index webhook_deliveries_ended on webhook_deliveries (created_at) where status <> 'pending';
