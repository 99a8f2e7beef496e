//! What arrived and when. A row is written under the same lock that decided about the request, before any answer.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use hashbrown::HashTable;
use serde::Serialize;

use super::{
    identity,
    schedule::Status,
    traffic::{Shared, listen},
};

/// Stands for a string that occurs often; 0 is the empty one.
pub(super) type Symbol = u32;

/// Strings kept once.
///
/// Each symbol stands beside the hash of its string. A table that grows would otherwise read and hash every string anew,
/// under the lock that every request needs: with a hundred thousand people that took 40 to 70 ms, in which nothing arrived.
#[derive(Default)]
pub(super) struct Names {
    symbols: HashTable<(u64, Symbol)>,
    hasher: RandomState,
    names: Vec<Arc<str>>,
}

impl Names {
    /// The symbol of a string.
    pub(super) fn symbol(&mut self, name: &str) -> Symbol {
        if name.is_empty() {
            return 0;
        }
        let hash = self.hasher.hash_one(name);
        let is_it =
            |known: &(u64, Symbol)| known.0 == hash && *self.names[known.1 as usize - 1] == *name;
        if let Some((_, symbol)) = self.symbols.find(hash, is_it) {
            return *symbol;
        }
        self.names.push(name.into());
        let symbol = self.names.len() as Symbol;
        self.symbols
            .insert_unique(hash, (hash, symbol), |known| known.0);
        symbol
    }

    /// The string of a symbol.
    pub(super) fn name(&self, symbol: Symbol) -> Arc<str> {
        match symbol {
            0 => "".into(),
            _ => self.names[symbol as usize - 1].clone(),
        }
    }
}

/// One request.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// Nanoseconds since the start.
    pub(super) at: u64,
    pub(super) number: Symbol,
    /// As the request wrote it.
    pub(super) recipient: Symbol,
    /// The `wa_id`, or the business-scoped id of somebody whose phone is not known.
    pub(super) person: Symbol,
    pub(super) template: Symbol,
    pub(super) language: Symbol,
    pub(super) callback: Option<Box<str>>,
    /// As receipts spell it.
    pub(super) category: &'static str,
    /// 0 when no answer was given.
    pub(super) http_status: u16,
    /// 0 when there was no error.
    pub(super) code: i32,
    pub(super) accepted: bool,
    pub(super) receipts: [u8; 4],
}

/// All rows, the oldest of which are forgotten beyond a limit.
pub(super) struct Rows {
    rows: VecDeque<Row>,
    /// The serial of the first row that is still here.
    first: u64,
    most: usize,
    pub(super) names: Names,
    pub(super) accepted: u64,
}

impl Rows {
    pub(super) fn new(most: usize) -> Rows {
        Rows {
            rows: VecDeque::new(),
            first: 0,
            most: most.max(1),
            names: Names::default(),
            accepted: 0,
        }
    }

    /// The serial that the next row will have.
    pub(super) fn next_serial(&self) -> u64 {
        self.first + self.rows.len() as u64
    }

    pub(super) fn push(&mut self, row: Row) {
        if self.rows.len() == self.most {
            self.rows.pop_front();
            self.first += 1;
        }
        self.accepted += u64::from(row.accepted);
        self.rows.push_back(row);
    }

    pub(super) fn get(&self, serial: u64) -> Option<&Row> {
        self.rows
            .get(usize::try_from(serial.checked_sub(self.first)?).ok()?)
    }

    /// Notes that a receipt was answered 200.
    pub(super) fn received(&mut self, serial: u64, status: Status) {
        let place = serial
            .checked_sub(self.first)
            .and_then(|place| usize::try_from(place).ok());
        if let Some(row) = place.and_then(|place| self.rows.get_mut(place)) {
            let count = &mut row.receipts[status as usize];
            *count = count.saturating_add(1);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u64, &Row)> {
        (self.first..).zip(&self.rows)
    }

    fn entry(&self, serial: u64, row: &Row, seed: u64) -> Entry {
        let text = |symbol| (symbol != 0).then(|| self.names.name(symbol).to_string());
        let [sent, delivered, read, failed] = row.receipts;
        Entry {
            serial,
            at_ns: row.at,
            number: text(row.number).unwrap_or_default(),
            recipient: text(row.recipient),
            template: text(row.template),
            language: text(row.language),
            callback: row.callback.as_deref().map(str::to_owned),
            http_status: (row.http_status != 0).then_some(row.http_status),
            code: (row.code != 0).then_some(row.code),
            accepted: row.accepted,
            message_id: row
                .accepted
                .then(|| identity::message_id(&self.names.name(row.person), serial, seed)),
            receipts: Statuses {
                sent,
                delivered,
                read,
                failed,
            },
        }
    }
}

/// One request that arrived, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its place in the order of arrival, from 0 on.
    pub serial: u64,
    /// Nanoseconds from the sandbox's start, on the monotonic clock.
    pub at_ns: u64,
    /// The number's id, as the path named it.
    pub number: String,
    /// The recipient, as the request wrote it; none when the body was not read or not understood.
    pub recipient: Option<String>,
    /// The template's name.
    pub template: Option<String>,
    /// The template's language.
    pub language: Option<String>,
    /// The callback data.
    pub callback: Option<String>,
    /// The answer's status; none when the connection was reset or nothing was answered.
    pub http_status: Option<u16>,
    /// The error's code, if it was one.
    pub code: Option<i32>,
    /// Whether the message was accepted, whatever the answer said.
    pub accepted: bool,
    /// The id of an accepted message.
    pub message_id: Option<String>,
    /// Receipts that were posted and answered 200.
    pub receipts: Statuses,
}

impl Entry {
    /// When it arrived, since the sandbox's start.
    #[must_use]
    pub fn at(&self) -> Duration {
        Duration::from_nanos(self.at_ns)
    }

    /// The job in our own form of callback data (`pr1.<installation>.<job>.<attempt>.…`).
    #[must_use]
    pub fn job(&self) -> Option<i64> {
        self.callback_part(2)
    }

    /// The attempt in our own form of callback data.
    #[must_use]
    pub fn attempt(&self) -> Option<i64> {
        self.callback_part(3)
    }

    fn callback_part(&self, place: usize) -> Option<i64> {
        job_part(self.callback.as_deref()?, place)
    }
}

fn job_part(callback: &str, place: usize) -> Option<i64> {
    callback
        .strip_prefix("pr1.")?
        .split('.')
        .nth(place - 1)?
        .parse()
        .ok()
}

/// How often each receipt was answered 200.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Statuses {
    /// `sent`
    pub sent: u8,
    /// `delivered`
    pub delivered: u8,
    /// `read`
    pub read: u8,
    /// `failed`
    pub failed: u8,
}

/// Reads what arrived so far; each call sees the newest state.
#[derive(Clone)]
pub struct Ledger {
    pub(super) shared: Arc<Shared>,
}

impl Ledger {
    /// How many requests arrived.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.shared.traffic().ledger.next_serial()
    }

    /// Whether nothing arrived yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many messages were accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.traffic().ledger.accepted
    }

    /// Waits until so many messages were accepted.
    pub async fn until_accepted(&self, count: u64) {
        listen(&self.shared.arrived, || self.accepted() >= count).await;
    }

    /// Waits until so many requests arrived.
    pub async fn until_arrived(&self, count: u64) {
        listen(&self.shared.arrived, || self.len() >= count).await;
    }

    /// Every request, in the order of arrival.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.filtered(|_, _| true)
    }

    /// At most `max` requests from this serial on.
    #[must_use]
    pub fn page(&self, from: u64, max: usize) -> Vec<Entry> {
        let traffic = self.shared.traffic();
        let rows = &traffic.ledger;
        let page = rows
            .iter()
            .skip_while(|(serial, _)| *serial < from)
            .take(max);
        page.map(|(serial, row)| rows.entry(serial, row, self.shared.seed()))
            .collect()
    }

    /// The requests whose callback data begins like this.
    #[must_use]
    pub fn by_callback(&self, prefix: &str) -> Vec<Entry> {
        self.filtered(|_, row| {
            row.callback
                .as_deref()
                .is_some_and(|callback| callback.starts_with(prefix))
        })
    }

    /// The requests of one job.
    #[must_use]
    pub fn of_job(&self, job: i64) -> Vec<Entry> {
        self.filtered(|_, row| {
            row.callback
                .as_deref()
                .and_then(|callback| job_part(callback, 2))
                == Some(job)
        })
    }

    /// The requests of every job.
    #[must_use]
    pub fn jobs(&self) -> HashMap<i64, Vec<Entry>> {
        let mut jobs: HashMap<i64, Vec<Entry>> = HashMap::new();
        for entry in self.entries() {
            if let Some(job) = entry.job() {
                jobs.entry(job).or_default().push(entry);
            }
        }
        jobs
    }

    /// The request whose message has this id.
    #[must_use]
    pub fn by_message_id(&self, message_id: &str) -> Option<Entry> {
        let seed = self.shared.seed();
        let traffic = self.shared.traffic();
        let serial = identity::serial(message_id, seed)?;
        let row = traffic.ledger.get(serial)?;
        let entry = traffic.ledger.entry(serial, row, seed);
        (entry.message_id.as_deref() == Some(message_id)).then_some(entry)
    }

    /// The most requests of a number within any second, wherever it begins; refused ones count too.
    #[must_use]
    pub fn max_in_any_second(&self, number: &str) -> usize {
        let mut traffic = self.shared.traffic();
        let number = traffic.ledger.names.symbol(number);
        let rows = traffic
            .ledger
            .iter()
            .filter(|(_, row)| row.number == number);
        most_within(rows.map(|(_, row)| row.at), 1_000_000_000)
    }

    /// The most different people to whom the numbers' messages were accepted within any window of this length.
    #[must_use]
    pub fn max_people_in_any(&self, window: Duration, numbers: &[&str]) -> usize {
        let mut traffic = self.shared.traffic();
        let numbers: HashSet<Symbol> = numbers
            .iter()
            .map(|number| traffic.ledger.names.symbol(number))
            .collect();
        let rows = traffic.ledger.iter().map(|(_, row)| row);
        let rows = rows.filter(|row| row.accepted && numbers.contains(&row.number));
        most_people(
            rows.map(|row| (row.at, row.person)),
            window.as_nanos() as u64,
        )
    }

    fn filtered(&self, keep: impl Fn(u64, &Row) -> bool) -> Vec<Entry> {
        let traffic = self.shared.traffic();
        let rows = &traffic.ledger;
        let kept = rows.iter().filter(|(serial, row)| keep(*serial, row));
        kept.map(|(serial, row)| rows.entry(serial, row, self.shared.seed()))
            .collect()
    }
}

/// The most of these ascending times that lie within `window` of one another (the window's end excluded).
fn most_within(times: impl Iterator<Item = u64>, window: u64) -> usize {
    let mut inside = VecDeque::new();
    let mut most = 0;
    for at in times {
        inside.push_back(at);
        while inside.front().is_some_and(|first| at - first >= window) {
            inside.pop_front();
        }
        most = most.max(inside.len());
    }
    most
}

fn most_people(arrivals: impl Iterator<Item = (u64, Symbol)>, window: u64) -> usize {
    let (mut inside, mut counts, mut most) = (VecDeque::new(), HashMap::<Symbol, u32>::new(), 0);
    for (at, person) in arrivals {
        inside.push_back((at, person));
        *counts.entry(person).or_default() += 1;
        while let Some((_, gone)) = inside
            .front()
            .copied()
            .filter(|(first, _)| at - first >= window)
        {
            inside.pop_front();
            let count = counts.entry(gone).or_default();
            *count -= 1;
            if *count == 0 {
                counts.remove(&gone);
            }
        }
        most = most.max(counts.len());
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_second_is_found_wherever_it_begins() {
        let times = [0, 999, 1_000, 1_001, 1_500, 1_999, 2_600];
        assert_eq!(
            most_within(times.into_iter(), 1_000),
            4,
            "1000 to 1999; 999 and 1999 are a second apart"
        );
        assert_eq!(most_within(std::iter::empty(), 1_000), 0);
    }

    #[test]
    fn people_are_counted_once_per_window() {
        let arrivals = [(0, 1), (1, 2), (2, 1), (10, 3), (11, 2)];
        assert_eq!(
            most_people(arrivals.into_iter(), 10),
            3,
            "2 to 11 has 1, 3 and 2"
        );
        assert_eq!(most_people(arrivals.into_iter(), 5), 2);
    }

    #[test]
    fn a_name_keeps_its_symbol_however_many_follow() {
        let mut names = Names::default();
        let told = |n: u32| format!("+90532{n:07}");
        let symbols: Vec<Symbol> = (0..10_000).map(|n| names.symbol(&told(n))).collect();
        for (n, symbol) in (0..).zip(symbols) {
            assert_eq!(names.symbol(&told(n)), symbol);
            assert_eq!(*names.name(symbol), told(n));
        }
        assert_eq!((names.symbol(""), &*names.name(0)), (0, ""));
    }

    #[test]
    fn old_rows_are_forgotten_and_serials_stay() {
        let mut rows = Rows::new(2);
        for at in 0..5 {
            rows.push(Row {
                at,
                ..Row::default()
            });
        }
        assert_eq!(rows.next_serial(), 5);
        assert!(rows.get(2).is_none());
        assert_eq!(rows.get(3).unwrap().at, 3);
    }

    #[test]
    fn a_job_is_read_from_our_callback_data_only() {
        assert_eq!(job_part("pr1.home.42.3.7.261121", 2), Some(42));
        assert_eq!(job_part("pr1.home.42.3.7.261121", 3), Some(3));
        assert_eq!(job_part("other.home.42.3", 2), None);
    }
}
