//! Text in columns.

/// The rows with their cells aligned: numbers to the right, the rest to the left. All rows are as
/// long as the first, which is the heading.
pub(crate) fn align<Row: AsRef<[String]>>(rows: &[Row]) -> Vec<String> {
    let mut widths = vec![0; rows.first().map_or(0, |row| row.as_ref().len())];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &Row| {
        let cells: Vec<String> = row
            .as_ref()
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| match is_number(cell) {
                true => format!("{cell:>width$}"),
                false => format!("{cell:width$}"),
            })
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// The rows as a table of Markdown, under the same conditions.
pub(crate) fn markdown<Row: AsRef<[String]>>(rows: &[Row]) -> Vec<String> {
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let mut lines: Vec<String> = rows.iter().map(|row| line(row.as_ref())).collect();
    if let Some(heading) = rows.first().map(AsRef::as_ref) {
        let numbers = |column: usize| {
            rows.iter().skip(1).all(|row| row.as_ref().get(column).is_some_and(|c| is_number(c)))
        };
        let rule = |column| (if numbers(column) { "---:" } else { "---" }).to_owned();
        let rules: Vec<String> = (0..heading.len()).map(rule).collect();
        lines.insert(1, line(&rules));
    }
    lines
}

/// Digits, and what may stand between and beside them: `1 234`, `55%`, `4.0 (3.9–6.1)`, `–`.
fn is_number(cell: &str) -> bool {
    cell.chars().all(|c| c.is_ascii_digit() || " .%()–".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_at_the_right() {
        let rows = [["target", "runs"], ["a", "7"], ["manifest", "1 234 567"]];
        let rows = rows.map(|row| row.map(String::from));
        assert_eq!(align(&rows), ["target    runs", "a                 7", "manifest  1 234 567"]);
    }

    #[test]
    fn markdown_has_a_rule_under_the_heading() {
        let rows = [["who", "wall / s"], ["we", "1.9 (1.8–2.0)"], ["they", "–"]];
        let rows = rows.map(|row| row.map(String::from));
        assert_eq!(
            markdown(&rows),
            ["| who | wall / s |", "| --- | ---: |", "| we | 1.9 (1.8–2.0) |", "| they | – |"]
        );
    }
}
