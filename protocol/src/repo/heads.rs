//! Heads as they stand in Automerge URLs and in `remote-heads-changed`, and document ids: base58 with a checksum.

use crate::ChangeHash;
use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Each hash and the first four bytes of its double SHA-256, in base 58.
pub fn encode_heads<'a>(heads: impl IntoIterator<Item = &'a ChangeHash>) -> Vec<String> {
    heads.into_iter().map(|hash| base58check(&hash.0)).collect()
}

/// Bytes and the first four of their double SHA-256, in base 58: as a document id is the 16 of a UUID.
pub fn base58check(bytes: &[u8]) -> String {
    let checksum = Sha256::digest(Sha256::digest(bytes));
    let bytes = bytes.iter().chain(&checksum[..4]);
    let mut digits: Vec<u8> = Vec::with_capacity(50);
    let mut zeros = 0;
    for &byte in bytes {
        let mut carry = u32::from(byte);
        if carry == 0 && digits.is_empty() {
            zeros += 1;
            continue;
        }
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 58) as u8;
            carry /= 58;
        }
        while carry > 0 {
            digits.push((carry % 58) as u8);
            carry /= 58;
        }
    }
    let leading = std::iter::repeat_n(&0, zeros);
    let digits = leading.chain(digits.iter().rev());
    digits.map(|digit| char::from(ALPHABET[usize::from(*digit)])).collect()
}
