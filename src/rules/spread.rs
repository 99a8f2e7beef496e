//! How the shards are spread over the instances that send.
//!
//! Every instance decides for itself, from the same table, which shards should be its own: what it has up to its quota, and
//! its part of those that are free. It gives back what it has beyond that. Nobody takes from another: a shard changes hands
//! only by being given back, or by a lease that ran out.
//!
//! Quotas differ by one at most, and whoever holds most has the larger one, so a join or a leave moves no more shards than it
//! must. Two instances that see the table at slightly different moments may both want a free shard, and then one of them gets
//! it, or neither, and then it is free at the next look; what is held is never fought over, so they come to rest.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// Where a shard stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// This instance holds it.
    Held(&'a str),
    /// Nobody does; if somebody did whose lease ran out, that is named: it is theirs again when they are back in time.
    Free(Option<&'a str>),
}

/// The shards that `me` should have, of all that have numbers. `senders` are the instances that send, by what was heard of
/// them lately; who is not among them gets none, but what they hold is theirs until it runs out.
#[must_use]
pub fn spread(
    me: &str,
    senders: &BTreeSet<&str>,
    shards: &BTreeMap<i16, Place<'_>>,
) -> BTreeSet<i16> {
    let mut room = quotas(senders, shards);
    let mut mine = BTreeSet::new();
    for (shard, place) in shards {
        if let Place::Held(holder) = place
            && take_room(&mut room, holder)
            && *holder == me
        {
            mine.insert(*shard);
        }
    }
    let mut free = Vec::new();
    for (shard, place) in shards {
        match place {
            Place::Held(_) => {}
            Place::Free(Some(last)) if take_room(&mut room, last) => {
                if *last == me {
                    mine.insert(*shard);
                }
            }
            Place::Free(_) => free.push(*shard),
        }
    }
    // Dealt out in one order, so that those who see the same table want different shards.
    let dealt = room
        .iter()
        .flat_map(|(sender, room)| std::iter::repeat_n(*sender, *room));
    let to_me = free
        .iter()
        .zip(dealt)
        .filter(|(_, sender)| *sender == me)
        .map(|(shard, _)| *shard);
    mine.extend(to_me);
    mine
}

/// How many shards each should have.
fn quotas<'a>(
    senders: &BTreeSet<&'a str>,
    shards: &BTreeMap<i16, Place<'_>>,
) -> BTreeMap<&'a str, usize> {
    if senders.is_empty() {
        return BTreeMap::new();
    }
    let (least, more) = (shards.len() / senders.len(), shards.len() % senders.len());
    let held = |sender: &str| {
        let has = |place: &&Place<'_>| match place {
            Place::Held(holder) | Place::Free(Some(holder)) => *holder == sender,
            Place::Free(None) => false,
        };
        shards.values().filter(has).count()
    };
    let mut by_held: Vec<&str> = senders.iter().copied().collect();
    by_held.sort_by_cached_key(|sender| (Reverse(held(sender)), *sender));
    by_held
        .into_iter()
        .enumerate()
        .map(|(index, sender)| (sender, least + usize::from(index < more)))
        .collect()
}

/// Whether there was room left for one more.
fn take_room(room: &mut BTreeMap<&str, usize>, sender: &str) -> bool {
    match room.get_mut(sender) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
