//! `load_balance_hosts=random`.

use std::hash::{BuildHasher, RandomState};

/// Puts the items into a random order. Every order is as likely as any other (Fisher and Yates).
pub(super) fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, random_up_to(last));
    }
}

/// The standard library's hash keys are random. With a few items, the remainder of a number of 64
/// bits favours none noticeably.
fn random_up_to(last: usize) -> usize {
    let random = RandomState::new().hash_one(last);
    let index = random % (last as u64 + 1);
    usize::try_from(index).unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn every_order_is_about_as_likely() {
        let mut seen: HashMap<[u8; 3], u32> = HashMap::new();
        for _ in 0..6000 {
            let mut items = [1, 2, 3];
            shuffle(&mut items);
            *seen.entry(items).or_default() += 1;
        }
        assert_eq!(seen.len(), 6);
        // Five standard deviations.
        assert!(seen.values().all(|count| (850..=1150).contains(count)), "{seen:?}");
        shuffle::<u8>(&mut []);
    }
}
