//! Which callers stay when there are too many: the busiest, but some of every account and service before more of any.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Caller, Name};

/// The callers that stay when at most `most` may, in no order. The busiest one of each account and service stands
/// before the second of any, so that a loud one, or one who sends a new user agent with each call, pushes out none
/// but its own. Of equally busy ones the order of their texts decides, so that the answer is always the same.
pub fn busiest(callers: Vec<(Arc<Caller>, u64)>, most: usize) -> Vec<(Arc<Caller>, u64)> {
    if callers.len() <= most {
        return callers;
    }
    let mut groups: BTreeMap<(Name, Name), Vec<(Arc<Caller>, u64)>> = BTreeMap::new();
    for (caller, calls) in callers {
        let group = (caller.account_id.clone(), caller.aws_service.clone());
        groups.entry(group).or_default().push((caller, calls));
    }
    let mut ranked = Vec::new();
    for mut group in groups.into_values() {
        group.sort_unstable_by(|(a, of_a), (b, of_b)| of_b.cmp(of_a).then_with(|| a.cmp(b)));
        ranked.extend(group.into_iter().enumerate());
    }
    ranked.sort_unstable_by(|(rank_a, (a, of_a)), (rank_b, (b, of_b))| {
        let busier = of_b.cmp(of_a);
        rank_a.cmp(rank_b).then(busier).then_with(|| a.cmp(b))
    });
    ranked.truncate(most);
    ranked.into_iter().map(|(_, caller)| caller).collect()
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
