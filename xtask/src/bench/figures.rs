//! One figure, measured in several rounds.

/// What was measured, in the order of the rounds.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures(Vec<f64>);

impl Figures {
    pub(super) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The middle one; of an even number, what lies halfway between the two in the middle.
    pub(super) fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        let high = sorted.get(sorted.len() / 2)?;
        let low = sorted.get((sorted.len() - 1) / 2)?;
        Some((low + high) / 2.0)
    }

    /// `4.00 (3.90–6.14)`: median, least and most; a dash without any.
    pub(super) fn show(&self, decimals: usize) -> String {
        let sorted = self.sorted();
        match (self.median(), sorted.first(), sorted.last()) {
            (Some(only), _, _) if sorted.len() == 1 => format!("{only:.decimals$}"),
            (Some(median), Some(least), Some(most)) => {
                format!("{median:.decimals$} ({least:.decimals$}–{most:.decimals$})")
            }
            _ => "–".to_owned(),
        }
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// The figure that `percent` of all do not exceed.
pub(super) fn percentile(mut figures: Vec<f64>, percent: usize) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let rank = (figures.len() * percent).div_ceil(100);
    figures.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(figures: &[f64]) -> Figures {
        Figures(figures.to_vec())
    }

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(figures(&[]).median(), None);
        assert_eq!(figures(&[7.0]).median(), Some(7.0));
        assert_eq!(figures(&[9.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(figures(&[9.0, 1.0, 2.0, 4.0]).median(), Some(3.0));
    }

    #[test]
    fn extremes_are_shown_where_there_are_several() {
        assert_eq!(figures(&[]).show(2), "–");
        assert_eq!(figures(&[4.0]).show(2), "4.00");
        assert_eq!(figures(&[4.0, 6.14, 3.9]).show(1), "4.0 (3.9–6.1)");
    }

    #[test]
    fn a_percentile_is_one_of_the_figures() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(hundred, 99), Some(99.0));
        assert_eq!(percentile(vec![5.0], 99), Some(5.0));
        assert_eq!(percentile(Vec::new(), 99), None);
    }
}
