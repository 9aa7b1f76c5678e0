//! Which callers come first when there is no room for all: the busiest, but nobody is pushed out by the mass of another.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Caller, Name};

/// The callers that stay when at most `most` may.
pub fn busiest(callers: Vec<(Arc<Caller>, u64)>, most: usize) -> Vec<(Arc<Caller>, u64)> {
    if callers.len() <= most {
        return callers;
    }
    let of = |(caller, _): &(Arc<Caller>, u64)| {
        let group = [&caller.account_id, &caller.aws_service].map(Name::clone);
        let who = [&caller.principal, &caller.user_agent, &caller.source_ip].map(Name::clone);
        (group, who)
    };
    let mut callers = in_turns(callers, usize::MAX, of, |(_, calls)| *calls);
    callers.truncate(most);
    callers
}

/// Brings numbers of calls into the order in which they find room. `of` tells the group of each, an account's service,
/// and whose calls they are; a group has room for those of `each` callers.
///
/// The busiest caller of each group begins, with its busiest call; in each further turn follow the next caller of each
/// and the next call of those who had a turn. So neither a loud account, nor a caller of many calls, nor one who sends
/// a new user agent each time takes the room of others. Of equally busy ones the order of the values decides, so that
/// the answer is always the same.
pub fn in_turns<S: Ord, G: Ord, W: Ord>(
    all: Vec<S>,
    each: usize,
    of: impl Fn(&S) -> (G, W),
    calls: impl Fn(&S) -> u64,
) -> Vec<S> {
    let mut groups: BTreeMap<G, BTreeMap<W, Vec<S>>> = BTreeMap::new();
    for one in all {
        let (group, who) = of(&one);
        let callers = groups.entry(group).or_default();
        callers.entry(who).or_default().push(one);
    }
    let busier = |a: &S, b: &S| calls(b).cmp(&calls(a)).then_with(|| a.cmp(b));
    let sum = |of_caller: &Vec<S>| of_caller.iter().map(&calls).fold(0, u64::saturating_add);
    let mut turns = Vec::new();
    for callers in groups.into_values() {
        let mut callers: Vec<Vec<S>> = callers.into_values().collect();
        // Stable: equally busy ones stay in their order.
        callers.sort_by_key(|of_caller| Reverse(sum(of_caller)));
        for (rank, mut of_caller) in callers.into_iter().take(each).enumerate() {
            of_caller.sort_unstable_by(busier);
            let turn = |(place, one)| (rank + place, place, one);
            turns.extend(of_caller.into_iter().enumerate().map(turn));
        }
    }
    turns.sort_unstable_by(|(turn_a, place_a, a), (turn_b, place_b, b)| {
        (turn_a, place_a)
            .cmp(&(turn_b, place_b))
            .then_with(|| busier(a, b))
    });
    turns.into_iter().map(|(.., one)| one).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tls::TlsVersion;

    fn caller(account: &str, user_agent: &str) -> Arc<Caller> {
        Arc::new(Caller {
            aws_service: Name::new("s3"),
            event_name: Name::new("GetObject"),
            tls_version: TlsVersion::Tls11,
            account_id: Name::new(account),
            principal: Name::new("p"),
            user_agent: Name::new(user_agent),
            source_ip: Name::new(""),
        })
    }

    #[test]
    fn a_loud_account_pushes_out_its_own_callers_alone() {
        let mut callers: Vec<_> = (0..300)
            .map(|number| (caller("loud", &number.to_string()), 1000 + number))
            .collect();
        callers.push((caller("quiet", "a"), 1));
        callers.push((caller("quiet", "b"), 2));
        let kept = busiest(callers, 4);
        let mut kept: Vec<(&str, u64)> = kept
            .iter()
            .map(|(caller, calls)| (caller.account_id.as_str(), *calls))
            .collect();
        kept.sort_unstable();
        assert_eq!(
            kept,
            [("loud", 1298), ("loud", 1299), ("quiet", 1), ("quiet", 2)]
        );
    }

    #[test]
    fn a_busy_caller_keeps_its_other_calls_before_the_mass_of_those_who_call_once() {
        let mut callers: Vec<_> = (0..300)
            .map(|number| (caller("loud", &number.to_string()), 1))
            .collect();
        callers.push((caller("loud", "busy"), 9));
        let other_call = Caller {
            event_name: Name::new("PutObject"),
            ..(*caller("loud", "busy")).clone()
        };
        callers.push((Arc::new(other_call), 1));
        let kept = busiest(callers, 9);
        let busy = kept
            .iter()
            .filter(|(caller, _)| caller.user_agent.as_str() == "busy");
        assert_eq!(busy.map(|(_, calls)| *calls).sum::<u64>(), 10);
    }

    proptest! {
        #[test]
        fn who_stays_is_busier_than_who_goes_and_no_group_has_two_more_than_one_that_lost(
            calls in prop::collection::vec((0..4_u8, 0_u64..5), 0..40),
            most in 0_usize..30,
            seed in any::<u64>(),
        ) {
            let all: Vec<_> = (0..)
                .zip(&calls)
                .map(|(number, (group, calls)): (u32, _)| (caller(&group.to_string(), &number.to_string()), *calls))
                .collect();
            let kept = busiest(all.clone(), most);
            prop_assert_eq!(kept.len(), most.min(all.len()));
            let gone: Vec<_> = all.iter().filter(|caller| !kept.contains(caller)).collect();
            let number = |account: &Name| kept.iter().filter(|(caller, _)| caller.account_id == *account).count();
            for (lost, calls) in &gone {
                for (stays, more) in &kept {
                    let same = stays.account_id == lost.account_id;
                    prop_assert!(!same || more >= calls);
                    prop_assert!(number(&stays.account_id) <= number(&lost.account_id) + 1);
                }
            }
            let mut shuffled = all;
            fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
            let sorted = |mut kept: Vec<(Arc<Caller>, u64)>| {
                kept.sort_unstable();
                kept
            };
            prop_assert_eq!(sorted(busiest(shuffled, most)), sorted(kept));
        }
    }
}
