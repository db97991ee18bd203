//! The journal's file: what is read of it whole, flipped, torn, or with what an earlier lap left in it.

use super::*;
use tempfile::TempDir;

fn batch(number: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(b"last".to_vec(), number.to_le_bytes().to_vec());
    batch.put(vec![number as u8; 3], vec![number as u8; 40 * number as usize]);
    batch.delete(vec![7; number as usize]);
    batch
}

fn batches(numbers: std::ops::RangeInclusive<u64>) -> Vec<Batch> {
    numbers.map(batch).collect()
}

fn begun(directory: &TempDir, base: u64) -> Journal {
    let mut journal = Journal::open(directory.path()).unwrap();
    journal.start_over(base, 77 * base).unwrap();
    journal
}

fn write(journal: &mut Journal, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let batch = batch(number);
        journal.reserve(&batch).unwrap();
        journal.append(&batch, number).unwrap();
        journal.sync().unwrap();
    }
}

fn read(directory: &TempDir) -> Records {
    match Content::read(directory.path()).unwrap() {
        Content::Records(records) => records,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_written_is_read_until_it_starts_over() {
    let directory = TempDir::new().unwrap();
    assert!(matches!(Content::read(directory.path()).unwrap(), Content::Blank(left) if left == Records::default()));
    let mut journal = begun(&directory, 10);
    assert_eq!((read(&directory).base, read(&directory).last()), (10, 10));
    write(&mut journal, 11..=20);
    let records = read(&directory);
    assert_eq!((records.base, records.last(), records.mended), (10, 20, 0));
    assert_eq!(records.batches, batches(11..=20));
    let after: Vec<u64> = records.after(17).map(|(number, _)| number).collect();
    assert_eq!(after, [18, 19, 20]);
    journal.start_over(20, 0).unwrap();
    assert!(journal.is_empty());
    assert_eq!(read(&directory).last(), 20);
    write(&mut journal, 21..=22);
    assert_eq!(read(&directory).batches, batches(21..=22));
    drop(journal);
    let journal = begun(&directory, 22);
    assert!(journal.is_empty() && read(&directory).batches.is_empty());
}

#[test]
fn the_file_is_filled_ahead_and_a_large_batch_goes_alone() {
    let directory = TempDir::new().unwrap();
    let length = || std::fs::metadata(directory.path().join(Journal::FILE)).unwrap().len();
    let mut journal = begun(&directory, 0);
    assert_eq!(length(), STEP_BYTES);
    let sized = |bytes: u64| {
        let mut batch = Batch::default();
        batch.put(b"key".to_vec(), vec![1; bytes as usize]);
        batch
    };
    let third = sized(BYTES_MAX / 3);
    for number in 1..=2 {
        assert!(journal.has_room(&third));
        journal.reserve(&third).unwrap();
        journal.append(&third, number).unwrap();
    }
    assert!(!journal.has_room(&third));
    assert_eq!(length(), 3 << 20);
    journal.start_over(2, 0).unwrap();
    let large = sized(3 * BYTES_MAX);
    assert!(journal.has_room(&large));
    journal.reserve(&large).unwrap();
    journal.append(&large, 3).unwrap();
    assert!(!journal.has_room(&sized(1)));
    assert_eq!(read(&directory).batches, [large]);
    journal.start_over(3, 0).unwrap();
    assert_eq!(length(), BYTES_MAX);
}

#[test]
fn the_note_stays_until_the_journal_is_retired() {
    let directory = TempDir::new().unwrap();
    let mut journal = begun(&directory, 10);
    assert_eq!((read(&directory).log_end, read(&directory).given), (770, None));
    let given = Given {
        segment: 7,
        place: 3 << 19,
    };
    journal.note().unwrap().write(given).unwrap();
    write(&mut journal, 11..=12);
    assert_eq!((read(&directory).last(), read(&directory).given), (12, Some(given)));
    journal.start_over(12, 900).unwrap();
    assert_eq!((read(&directory).log_end, read(&directory).given), (900, Some(given)));
    let path = directory.path().join(Journal::FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[SECTOR_BYTES as usize + 2] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(read(&directory).given, None, "it is not believed");
    journal.retire().unwrap();
    let Content::Blank(left) = Content::read(directory.path()).unwrap() else {
        panic!("it was retired");
    };
    assert_eq!((left.base, left.last(), left.given), (10, 12, None));
    assert_eq!(left.batches, batches(11..=12));
}

#[test]
fn a_record_of_an_earlier_lap_is_never_taken_for_one_of_this() {
    let directory = TempDir::new().unwrap();
    let mut journal = begun(&directory, 0);
    // All of one size, so that each begins where an older one did.
    let sized = |number: u64| {
        let mut batch = Batch::default();
        batch.put(b"key".to_vec(), number.to_le_bytes().to_vec());
        batch
    };
    for number in 1..=9 {
        journal.append(&sized(number), number).unwrap();
    }
    // As after a power cut that left the pages with batch 4: 5 to 9 were not acknowledged, and are there.
    journal.start_over(4, 0).unwrap();
    assert_eq!(read(&directory).last(), 4);
    for number in 5..=6 {
        journal.append(&sized(number), number).unwrap();
        assert_eq!(read(&directory).last(), number);
    }
    // The next one would be the old 7, which lies there.
    let path = directory.path().join(Journal::FILE);
    let bytes = std::fs::read(&path).unwrap();
    let third = 4 * SECTOR_BYTES as usize;
    assert_eq!(&bytes[third + 8..third + 16], &3u64.to_le_bytes());
    let mut moved = bytes;
    let seventh = 8 * SECTOR_BYTES as usize;
    moved.copy_within(seventh..seventh + SECTOR_BYTES as usize, third);
    assert_eq!(&moved[third + 8..third + 16], &7u64.to_le_bytes());
    std::fs::write(&path, moved).unwrap();
    assert_eq!(read(&directory).last(), 6);
}

/// A journal with these batches, as far as it is written.
fn bytes(numbers: std::ops::RangeInclusive<u64>) -> Vec<u8> {
    let directory = TempDir::new().unwrap();
    let mut journal = begun(&directory, numbers.start() - 1);
    write(&mut journal, numbers);
    let mut bytes = std::fs::read(directory.path().join(Journal::FILE)).unwrap();
    bytes.truncate(journal.end as usize);
    bytes
}

fn parse(bytes: &[u8]) -> Option<Records> {
    match Content::parse(bytes) {
        Content::Records(records) => Some(records),
        Content::Damaged(left) => {
            assert_eq!(left.batches, batches(left.base + 1..=left.last()));
            assert!(!left.batches.is_empty() && !left.is_cut);
            None
        }
        Content::Blank(_) => panic!("there is one"),
    }
}

#[test]
fn any_single_bit_is_put_right() {
    let sound = bytes(4..=6);
    let mut mended = 0;
    for bit in (0..8 * HEAD_BYTES).chain(8 * RECORDS_AT as usize..8 * sound.len()) {
        let mut damaged = sound.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let records = parse(&damaged).unwrap();
        assert_eq!((records.base, &records.batches), (3, &batches(4..=6)), "bit {bit}");
        assert!(!records.is_cut);
        mended += records.mended;
    }
    let records = (4..=6).map(|number| RECORD_HEAD_BYTES + record::payload_bytes(&batch(number)));
    assert_eq!(
        mended,
        8 * (HEAD_BYTES + records.sum::<usize>()),
        "all but the fill between records"
    );
}

#[test]
fn more_than_a_bit_ends_it_or_is_told() {
    let sound = bytes(1..=5);
    for at in (0..sound.len() - 3).step_by(3) {
        let mut damaged = sound.clone();
        damaged[at] = !damaged[at];
        damaged[at + 3] ^= 0x11;
        match parse(&damaged) {
            Some(records) => {
                assert_eq!(records.mended, 0, "at {at}");
                assert_eq!(records.batches, batches(1..=records.last()), "at {at}");
                assert_eq!(records.is_cut, records.last() < 4, "at {at}");
            }
            None => assert!(at < HEAD_BYTES, "at {at}"),
        }
    }
}

#[test]
fn a_write_that_tore_is_there_as_a_whole_or_not_at_all() {
    let (before, after) = (bytes(1..=5).len(), bytes(1..=6));
    let size = SECTOR_BYTES as usize;
    for cut in before..after.len() {
        let mut torn = after.clone();
        torn[cut..].fill(0);
        let mut reordered = after.clone();
        // Its sectors but one are there.
        let sector = cut / size * size;
        reordered[sector..sector + size].fill(0);
        for bytes in [torn, reordered] {
            let records = parse(&bytes).unwrap();
            assert_eq!(records.batches, batches(1..=records.last()), "cut at {cut}");
            assert!((5..=6).contains(&records.last()), "cut at {cut}");
            assert!(!records.is_cut, "cut at {cut}");
        }
    }
}

#[test]
fn a_torn_record_is_not_put_right_though_one_bit_makes_its_checksum_right() {
    let sound = bytes(1..=1);
    let (head, payload) = sound[RECORDS_AT as usize..].split_at(RECORD_HEAD_BYTES);
    let length = record::payload_bytes(&batch(1));
    let mut torn = payload[..length].to_vec();
    // Amid a value; a key is another one, so this is not what was written.
    let end = length - 20;
    torn[5] = !torn[5];
    let crc = u32::from_le_bytes(head[..4].try_into().unwrap());
    let state = |payload: &[u8]| {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&head[4..]);
        hasher.update(payload);
        hasher.finalize()
    };
    torn[end..end + 4].fill(0);
    let zero = state(&torn);
    // Any four bytes decide the checksum, bit by bit, linearly.
    let columns: Vec<u32> = (0..32)
        .map(|bit| {
            torn[end + bit / 8] = 1 << (bit % 8);
            let column = state(&torn) ^ zero;
            torn[end + bit / 8] = 0;
            column
        })
        .collect();
    let bits = solve(&columns, crc ^ zero);
    torn[end..end + 4].copy_from_slice(&(bits ^ 1).to_le_bytes());
    assert!(flipped_bit(state(&torn) ^ crc, 8 * length).is_some());
    let mut bytes = sound.clone();
    bytes[RECORDS_AT as usize + RECORD_HEAD_BYTES..][..length].copy_from_slice(&torn);
    assert_eq!(parse(&bytes).unwrap().batches, []);
    // Nor is it believed if the checksum itself is right by chance.
    torn[end..end + 4].copy_from_slice(&bits.to_le_bytes());
    assert_eq!(state(&torn), crc);
    bytes[RECORDS_AT as usize + RECORD_HEAD_BYTES..][..length].copy_from_slice(&torn);
    assert_eq!(parse(&bytes).unwrap().batches, []);
}

/// Which of the columns add up to `sum`.
fn solve(columns: &[u32], sum: u32) -> u32 {
    let mut basis: Vec<(u32, u32)> = Vec::new();
    let reduce = |basis: &[(u32, u32)], mut value: (u32, u32)| {
        for (column, uses) in basis {
            if value.0 & (1 << column.ilog2()) != 0 {
                value = (value.0 ^ column, value.1 ^ uses);
            }
        }
        value
    };
    for (bit, column) in columns.iter().enumerate() {
        let reduced = reduce(&basis, (*column, 1 << bit));
        assert_ne!(reduced.0, 0, "four bytes make any checksum");
        basis.push(reduced);
    }
    let (left, uses) = reduce(&basis, (sum, 0));
    assert_eq!(left, 0);
    uses
}
