use proptest::prelude::*;

use super::*;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// The table that all instances see.
#[derive(Debug, Clone)]
struct Table {
    senders: BTreeSet<&'static str>,
    shards: BTreeMap<i16, Place<'static>>,
}

impl Table {
    fn new(shards: i16) -> Self {
        Self {
            senders: BTreeSet::new(),
            shards: (0..shards)
                .map(|shard| (shard, Place::Free(None)))
                .collect(),
        }
    }

    /// One instance acts on what it saw: it gives back what is too much, and takes what is still free.
    fn act(&mut self, me: &'static str, seen: &Table) {
        let mine = spread(me, &seen.senders, &seen.shards);
        for (shard, place) in &mut self.shards {
            match place {
                Place::Held(holder) if *holder == me && !mine.contains(shard) => {
                    *place = Place::Free(None);
                }
                Place::Free(_) if mine.contains(shard) => *place = Place::Held(me),
                _ => {}
            }
        }
    }

    /// All act, each on what it sees at that moment, until nothing changes any more.
    fn come_to_rest(&mut self) {
        for _ in 0..4 {
            for sender in self.senders.clone() {
                self.act(sender, &self.clone());
            }
        }
        let rest = self.clone();
        for sender in self.senders.clone() {
            self.act(sender, &rest);
        }
        assert_eq!(self.shards, rest.shards, "they do not come to rest");
    }

    fn holders(&self) -> BTreeMap<i16, Option<&'static str>> {
        let holder = |place: &Place<'static>| match place {
            Place::Held(holder) => Some(*holder),
            Place::Free(_) => None,
        };
        self.shards
            .iter()
            .map(|(shard, place)| (*shard, holder(place)))
            .collect()
    }

    /// How many each has that sends.
    fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts: BTreeMap<_, _> = self.senders.iter().map(|sender| (*sender, 0)).collect();
        for holder in self.holders().into_values().flatten() {
            *counts.entry(holder).or_default() += 1;
        }
        counts
    }

    fn assert_fair(&self) {
        let counts = self.counts();
        let most = counts.values().max().copied().unwrap_or(0);
        let least = counts.values().min().copied().unwrap_or(0);
        assert!(most - least <= 1, "{counts:?}");
        let held: usize = counts.values().sum();
        assert_eq!(held, self.shards.len(), "all are held");
    }

    /// An instance ends: its leases run out.
    fn leave(&mut self, name: &'static str) {
        self.senders.remove(name);
        for place in self.shards.values_mut() {
            if *place == Place::Held(name) {
                *place = Place::Free(Some(name));
            }
        }
    }

    /// How many shards stay where they are if as few as possible move and all have as many as is fair.
    fn most_that_can_stay(&self) -> usize {
        let (least, more) = (
            self.shards.len() / self.senders.len(),
            self.shards.len() % self.senders.len(),
        );
        let counts = self.counts();
        let counts = self.senders.iter().map(|sender| counts[sender]);
        let above = counts.clone().filter(|held| *held > least).count();
        counts.map(|held| held.min(least)).sum::<usize>() + above.min(more)
    }
}

/// Who joins if they are not there, and leaves if they are.
fn comings_and_goings() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(&NAMES[..]), 1..20)
}

proptest! {
    #[test]
    fn a_join_or_a_leave_moves_no_more_shards_than_it_must(
        shards in 0_i16..40, who in comings_and_goings()
    ) {
        let mut table = Table::new(shards);
        for name in who {
            if table.senders.contains(name) {
                table.leave(name);
            } else {
                table.senders.insert(name);
            }
            if table.senders.is_empty() {
                continue;
            }
            let (before, can_stay) = (table.holders(), table.most_that_can_stay());
            table.come_to_rest();
            table.assert_fair();
            let stayed = table
                .holders()
                .iter()
                .filter(|(shard, holder)| holder.is_some() && before[shard] == **holder)
                .count();
            prop_assert_eq!(stayed, can_stay);
        }
    }

    /// Each acts on a table that it saw a few acts of others ago, while instances come and go and sleep.
    #[test]
    fn instances_that_see_different_tables_come_to_rest_all_the_same(
        shards in 0_i16..40,
        acts in prop::collection::vec((0_usize..6, 0_usize..8, prop::bool::weighted(0.1)), 0..200),
    ) {
        let mut table = Table::new(shards);
        table.senders.extend(["a", "b", "c"]);
        let mut seen = vec![table.clone()];
        for (who, ago, comes_or_goes) in acts {
            let name = NAMES[who];
            if comes_or_goes && table.senders.contains(name) {
                table.leave(name);
            } else if comes_or_goes {
                table.senders.insert(name);
            }
            if table.senders.contains(name) {
                let view = seen[seen.len().saturating_sub(1 + ago)].clone();
                table.act(name, &view);
            }
            seen.push(table.clone());
        }
        if !table.senders.is_empty() {
            table.come_to_rest();
            table.assert_fair();
        }
    }

    /// All look at the same moment, and only then act.
    #[test]
    fn of_those_who_look_at_the_same_moment_no_two_want_the_same_shard(
        shards in 0_i16..40, holders in prop::collection::vec(prop::option::of(0_usize..6), 40)
    ) {
        let mut table = Table::new(shards);
        table.senders.extend(NAMES);
        for (place, holder) in table.shards.values_mut().zip(holders) {
            *place = holder.map_or(Place::Free(None), |holder| Place::Held(NAMES[holder]));
        }
        let mut wanted = BTreeSet::new();
        for name in NAMES {
            for shard in spread(name, &table.senders, &table.shards) {
                prop_assert!(wanted.insert(shard), "{} is wanted twice", shard);
            }
        }
    }
}

#[test]
fn one_instance_has_all_shards() {
    let mut table = Table::new(5);
    table.senders.insert("a");
    assert_eq!(
        spread("a", &table.senders, &table.shards).len(),
        table.shards.len()
    );
}

#[test]
fn an_instance_that_does_not_send_gets_none() {
    let mut table = Table::new(5);
    table.senders.insert("a");
    assert_eq!(spread("b", &table.senders, &table.shards), BTreeSet::new());
}

#[test]
fn with_more_instances_than_shards_some_have_none() {
    let mut table = Table::new(2);
    table.senders.extend(["a", "b", "c"]);
    table.come_to_rest();
    let counts: Vec<usize> = table.counts().into_values().collect();
    assert_eq!(counts, [1, 1, 0]);
}

#[test]
fn what_a_silent_instance_holds_is_its_own_until_it_runs_out() {
    let mut table = Table::new(4);
    table.senders.extend(["a", "b"]);
    table.come_to_rest();
    let before = table.holders();
    table.senders.remove("b");
    table.come_to_rest();
    assert_eq!(table.holders(), before);
}

#[test]
fn after_a_silence_of_all_each_takes_up_what_it_had() {
    let mut table = Table::new(7);
    table.senders.extend(["a", "b", "c"]);
    table.come_to_rest();
    let before = table.holders();
    for place in table.shards.values_mut() {
        if let Place::Held(holder) = *place {
            *place = Place::Free(Some(holder));
        }
    }
    table.come_to_rest();
    assert_eq!(table.holders(), before);
}
