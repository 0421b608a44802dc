//! SQLite's log, looked at before SQLite reads it: does it end where a write broke off, or where
//! somebody's disk changed what was written?
//!
//! SQLite stops at the first frame that does not fit and takes what follows for a write that was
//! never finished. After a crash that is right. When a byte of an older frame has changed it
//! silently forgets every commit from there on, although all of them were acknowledged.
//!
//! The two can be told apart. Every commit is synced before the next one begins (`synchronous =
//! FULL`), so only the frames of the last transaction can be missing or torn. A frame that does
//! not fit although a commit and the beginning of another transaction stand behind it was whole
//! once. (Of damage to the very last transaction nobody can tell which it is.)
//!
//! The format: <https://www.sqlite.org/fileformat2.html#walformat>.

use super::database::Fault;
use std::{
    array,
    fs::{File, OpenOptions},
    io::{self, BufReader, ErrorKind, Read},
    ops::RangeInclusive,
    path::Path,
};

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// What the header begins with. Its last bit says how checksums read the data.
const MAGIC: u32 = 0x377f_0682;
const BIG_ENDIAN: u32 = MAGIC | 1;
const PAGE_SIZES: RangeInclusive<u32> = 512..=65536;

/// Refuses a log that was damaged after it was written. A missing one is fine.
pub(super) fn check(log: &Path) -> Result<(), Fault> {
    let found = match File::open(log) {
        Ok(file) => damage(BufReader::with_capacity(1 << 20, file)),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
    };
    let name = log.display();
    match found {
        Ok(None) => Ok(()),
        Ok(Some(what)) => Err(Fault::Content(format!(
            "{what} of its log `{name}` was changed after it was written"
        ))),
        Err(error) => Err(Fault::Refused(format!("cannot read its log `{name}`: {error}"))),
    }
}

/// Leaves so many frames of a log, and makes that durable. Whoever has it open reads no further than
/// that: SQLite goes by its index, in which only committed frames are.
pub(super) fn cut(log: &Path, frames: u64) -> io::Result<()> {
    let mut file = match OpenOptions::new().read(true).write(true).open(log) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut header = [0; HEADER];
    let length = match frames {
        0 => 0,
        _ if !fill(&mut file, &mut header)? => return Ok(()),
        _ => {
            let [_, _, page_size, ..] = words::<8>(&header);
            HEADER as u64 + frames * (FRAME_HEADER as u64 + u64::from(page_size))
        }
    };
    if file.metadata()?.len() > length {
        file.set_len(length)?;
    }
    file.sync_all()
}

/// What was damaged, if something was.
fn damage(mut log: impl Read) -> io::Result<Option<String>> {
    let mut header = [0; HEADER];
    if !fill(&mut log, &mut header)? {
        return Ok(None);
    }
    let [magic, _, page_size, _, salt, other_salt, sum, other_sum] = words(&header);
    let sums = Sums { big_endian: magic == BIG_ENDIAN };
    let (summed, _) = header.split_at(HEADER - 8);
    let sound = matches!(magic, MAGIC | BIG_ENDIAN)
        && PAGE_SIZES.contains(&page_size)
        && sums.of((0, 0), summed) == (sum, other_sum);
    if !sound {
        // It is synced before the first frame is written.
        let frames = fill(&mut log, &mut [0; FRAME_HEADER])?;
        return Ok(frames.then(|| "the header".to_owned()));
    }
    let mut frame = vec![0; FRAME_HEADER + page_size as usize];
    let mut before = Before { sum: (sum, other_sum), committed: false };
    let mut misfit = None;
    for number in 1_u64.. {
        if !fill(&mut log, &mut frame)? {
            break;
        }
        let (head, page) = frame.split_at(FRAME_HEADER);
        let [_, commit, a, b, sum, other_sum] = words(head);
        let of_this_log = (a, b) == (salt, other_salt);
        let (summed, _) = head.split_at(8);
        let follows = of_this_log && sums.of(sums.of(before.sum, summed), page) == (sum, other_sum);
        match misfit {
            None if follows => {}
            None => misfit = Some(number),
            Some(misfit) if follows && before.committed => {
                return Ok(Some(format!("frame {misfit}")));
            }
            Some(_) => {}
        }
        before = Before { sum: (sum, other_sum), committed: of_this_log && commit != 0 };
    }
    Ok(None)
}

/// What a frame has to follow.
struct Before {
    /// The checksum as it stands there, right or wrong.
    sum: (u32, u32),
    /// Whether a transaction ended there.
    committed: bool,
}

/// SQLite's checksum, which goes on from frame to frame.
struct Sums {
    big_endian: bool,
}

impl Sums {
    fn of(&self, start: (u32, u32), bytes: &[u8]) -> (u32, u32) {
        let read = if self.big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        let words = bytes.as_chunks::<4>().0.iter().map(|word| read(*word));
        // The two sums take turns.
        words
            .fold(start, |(this, other), word| (other, this.wrapping_add(word).wrapping_add(other)))
    }
}

/// The numbers a header consists of.
fn words<const N: usize>(header: &[u8]) -> [u32; N] {
    let (words, _) = header.as_chunks::<4>();
    array::from_fn(|at| words.get(at).map_or(0, |word| u32::from_be_bytes(*word)))
}

/// Reads exactly as much as fits, or says that there is not so much.
fn fill(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    const PAGE: usize = 4096;
    const FRAME: usize = FRAME_HEADER + PAGE;

    /// The log of so many transactions, as SQLite writes it, and where each one ends.
    fn log(transactions: usize) -> (Vec<u8>, Vec<usize>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.db");
        let connection = Connection::open(&file).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        let read = || std::fs::read(dir.path().join("x.db-wal")).unwrap();
        connection.execute_batch("CREATE TABLE t (x)").unwrap();
        let mut ends = vec![read().len()];
        for _ in 1..transactions {
            connection.execute_batch("INSERT INTO t VALUES (randomblob(9000))").unwrap();
            ends.push(read().len());
        }
        (read(), ends)
    }

    fn found(log: &[u8]) -> Option<String> {
        damage(log).unwrap()
    }

    #[test]
    fn what_sqlite_writes_is_sound() {
        let (log, ends) = log(5);
        assert!(ends.iter().all(|end| (end - HEADER).is_multiple_of(FRAME)));
        assert_eq!(found(&log), None);
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn a_cut_anywhere_is_a_write_that_broke_off() {
        let (log, _) = log(4);
        for length in (0..log.len()).step_by(517) {
            assert_eq!(found(&log[..length]), None, "{length}");
        }
    }

    /// After a power failure any page of what was not synced may be missing.
    #[test]
    fn a_hole_in_the_last_transaction_is_a_write_that_broke_off() {
        let (log, ends) = log(4);
        let last = ends[2]..ends[3];
        for start in last.clone().step_by(512) {
            let mut torn = log.clone();
            torn[start..last.end.min(start + 512)].fill(0);
            assert_eq!(found(&torn), None, "{start}");
        }
    }

    /// A transaction that was given up, and is only in part written over by the next one.
    #[test]
    fn what_is_left_of_another_write_is_nothing() {
        let (log, ends) = log(4);
        let (other, _) = self::log(6);
        let mut left = [&log[..ends[2]], &other[ends[2]..]].concat();
        assert_eq!(found(&left), None, "of another log");
        // Of the same log: as if the third had been written twice, the first time longer.
        left = [&log[..ends[2]], &log[ends[2] + FRAME..], &log[ends[2]..]].concat();
        assert_eq!(found(&left), None, "of the same log");
    }

    #[test]
    fn a_changed_bit_in_what_was_committed_is_damage() {
        let (log, ends) = log(5);
        // Whatever its place, two whole transactions stand behind it.
        for at in (0..ends[2]).step_by(97) {
            let mut changed = log.clone();
            changed[at] ^= 1 << (at % 8);
            let expected = match at.checked_sub(HEADER) {
                None => "the header".to_owned(),
                Some(at) => format!("frame {}", at / FRAME + 1),
            };
            assert_eq!(found(&changed), Some(expected), "{at}");
        }
    }
}
