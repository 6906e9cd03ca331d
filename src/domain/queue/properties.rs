//! What must hold for any queue, tried on random ones: places agree with the order, a start moves everybody up by one, nobody waits
//! for ever.

use proptest::{collection::vec, prelude::*};

use super::*;

const DAY: i64 = 24 * 3600;

#[expect(clippy::unnecessary_wraps, reason = "an owner is an option everywhere")]
fn user(i: usize) -> Option<UserName> {
    Some(["ana", "bo", "cy", "di"][i].parse().expect("a name"))
}

fn running(owner: Option<UserName>) -> RunningJob {
    RunningJob { id: JobId::new(), owner, priority: Priority::Normal, slot: 0, since: 0, estimated_finish: None }
}

/// Lanes of jobs of (owner, class), in order of creation.
fn queue(jobs: &[(usize, usize)], runs: &[usize], max_running: Option<u32>, used: &[f64]) -> Queue {
    let mut lanes: Vec<Lane> = Vec::new();
    for (seq, (owner, class)) in jobs.iter().enumerate() {
        let (owner, class) = (user(*owner), Priority::ALL[*class]);
        match lanes.iter_mut().find(|lane| lane.owner == owner && lane.class == class) {
            Some(lane) => lane.n_waiting += 1,
            None => lanes.push(Lane { owner, class, n_waiting: 1, oldest_seq: seq as i64 }),
        }
    }
    Queue {
        rules: QueueRules { max_running_per_user: max_running, ..QueueRules::new(2) },
        lanes,
        running: runs.iter().map(|owner| running(user(*owner))).collect(),
        used_seconds: used.iter().enumerate().map(|(i, seconds)| (user(i), *seconds)).collect(),
        usual_seconds: None,
    }
}

fn order(queue: &Queue) -> Vec<String> {
    let name = |lane: &Lane| lane.owner.as_ref().map_or("", UserName::as_str).to_owned();
    queue.first(99).iter().map(|(lane, nth)| format!("{} {} {nth}", name(lane), lane.class.as_str())).collect()
}

#[test]
fn owners_take_turns_within_a_class() {
    let (low, normal, high) = (0, 1, 2);
    let jobs = [(0, normal), (0, normal), (0, normal), (1, normal), (1, low), (2, low), (0, high)];
    // The high one first; it is ana's, so at her next turn she would have one slot, and bo none.
    let expected =
        ["ana high 0", "bo normal 0", "ana normal 0", "ana normal 1", "ana normal 2", "cy low 0", "bo low 0"];
    assert_eq!(order(&queue(&jobs, &[], None, &[])), expected);
    // Ana runs one already, so both of bo's and cy's first ones are sooner; bo has used more than cy lately.
    let jobs = [(0, normal), (1, normal), (2, normal)];
    assert_eq!(order(&queue(&jobs, &[0], None, &[0.0, 9.0, 5.0])), ["cy normal 0", "bo normal 0", "ana normal 0"]);
    // One slot each: what is above the limit stands behind everybody, whatever its priority.
    let jobs = [(0, high), (0, high), (1, low)];
    assert_eq!(order(&queue(&jobs, &[], Some(1), &[])), ["ana high 0", "bo low 0", "ana high 1"]);
}

#[test]
fn starts_are_told_from_what_runs_and_from_what_jobs_usually_take() {
    let mut queue = queue(&[(0, 1), (0, 1), (0, 1)], &[1, 2], None, &[]);
    queue.running[0].estimated_finish = Some(1_000);
    assert_eq!(queue.starts(500, 3), [Some(1_000), None, None]);
    queue.usual_seconds = Some(600);
    assert_eq!(queue.starts(500, 3), [Some(600), Some(1_000), Some(1_200)]);
    queue.running.clear();
    assert_eq!(queue.starts(500, 3), [Some(500), Some(500), Some(1_100)]);
}

fn any_queue() -> impl Strategy<Value = Queue> {
    let limit = prop_oneof![Just(None), (0_u32..4).prop_map(Some)];
    (vec((0_usize..4, 0_usize..3), 0..30), vec(0_usize..4, 0..3), limit, vec(0_u8..3, 4)).prop_map(
        |(jobs, runs, limit, used)| queue(&jobs, &runs, limit, &used.into_iter().map(f64::from).collect::<Vec<_>>()),
    )
}

proptest! {
    #[test]
    fn a_place_is_what_the_order_says(queue in any_queue()) {
        let order = queue.first(usize::MAX);
        prop_assert_eq!(order.len() as u64, queue.lanes.iter().map(|lane| lane.n_waiting).sum::<u64>());
        for (place, (lane, nth)) in order.iter().enumerate() {
            prop_assert_eq!(queue.n_ahead(lane, *nth), place as u64);
        }
        let first_allowed = order.first().filter(|(lane, nth)| !queue.is_held(lane, *nth));
        prop_assert_eq!(queue.next(), first_allowed.map(|(lane, _)| *lane));
    }

    #[test]
    fn a_start_moves_everybody_up_by_one(mut queue in any_queue()) {
        // Ties go by the age of a lane's oldest, which a start changes: without ties places are the same to the last.
        for (i, seconds) in queue.used_seconds.values_mut().enumerate() {
            *seconds += 0.1 * i as f64;
        }
        let before = order(&queue);
        let Some(next) = queue.next().cloned() else { return Ok(()) };
        let next = queue.lanes.iter().position(|lane| *lane == next).expect("it is one of them");
        queue.running.push(running(queue.lanes[next].owner.clone()));
        queue.lanes[next].n_waiting -= 1;
        queue.lanes[next].oldest_seq += 1;
        let owners = |order: &[String]| -> Vec<String> {
            order.iter().map(|place| place.rsplit_once(' ').expect("three words").0.to_owned()).collect()
        };
        prop_assert_eq!(owners(&order(&queue)), owners(&before[1..]));
    }

    /// Others always have jobs of higher priorities waiting, and this one's owner has used more than they.
    #[test]
    fn nobody_waits_for_ever(seconds in vec(60_i64..20_000, 8), used in 0.0..100_000.0) {
        let (mut now, mut class_since, mut class) = (0, 0, 0);
        let mut uses = [0.0, 0.0, 0.0, used];
        let mut noted = 0;
        for duration in seconds.iter().cycle() {
            prop_assert!(now < 5 * DAY, "it still waits");
            while class < 2 && now - class_since >= QueueRules::RAISED_AFTER_SECONDS {
                (class, class_since) = (class + 1, class_since + QueueRules::RAISED_AFTER_SECONDS);
            }
            let queue = queue(&[(3, class), (0, 1), (0, 1), (1, 1), (2, 2), (2, 2)], &[], None, &uses);
            let owner = queue.next().expect("all may run").owner.clone();
            if owner == user(3) {
                return Ok(());
            }
            now += duration;
            uses.iter_mut().for_each(|seconds| *seconds = QueueRules::left_of_use(*seconds, noted, now));
            uses[(0..4).find(|i| user(*i) == owner).expect("one of them")] += *duration as f64;
            noted = now;
        }
    }
}
