//! How diagnostics speak: quoting what was written, naming the nearest thing that is known.

/// How many characters of a user's text a message repeats.
const SHOWN: usize = 64;

/// Longer texts are not compared with known names: nobody misspells that much, and the comparison is quadratic.
const LONGEST_COMPARED: usize = 64;

/// The text in double quotes, control characters escaped, shortened where it is long.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(SHOWN) + 2);
    out.push('"');
    for (count, character) in text.chars().enumerate() {
        if count == SHOWN {
            out.push('…');
            break;
        }
        if unprintable(character) || character == '"' || character == '\\' {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out.push('"');
    out
}

/// Characters that do not show, or that change how the rest of a line shows: controls, line separators, text
/// direction marks, the byte order mark, zero-width characters.
pub(crate) fn unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The known name that is nearest to `text`, if one is near enough to have been meant.
pub(crate) fn nearest<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let text: Vec<char> = text.chars().take(LONGEST_COMPARED + 1).flat_map(char::to_lowercase).collect();
    if text.is_empty() || text.len() > LONGEST_COMPARED {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for candidate in known {
        let other: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
        let allowed = (text.len().max(other.len()) / 3).max(1);
        if text.len().abs_diff(other.len()) > allowed {
            continue;
        }
        let distance = distance(&text, &other);
        if distance <= allowed && distance < other.len() && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that lead from one word to the other (the restricted
/// Damerau-Levenshtein distance).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

/// `a, b or c`.
pub(crate) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [front @ .., last] => format!("{} or {last}", front.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let count = |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!(count("", "abc"), 3);
        assert_eq!(count("sources", "sources"), 0);
        assert_eq!(count("domians", "domains"), 1);
        assert_eq!(count("timezone", "time_zone"), 1);
        assert_eq!(count("kitten", "sitting"), 3);
    }

    #[test]
    fn nearest_names_only_what_is_near() {
        let known = ["domains", "ips", "ports", "domain_lists"];
        assert_eq!(nearest("Domian", known), Some("domains"));
        assert_eq!(nearest("ip", known), Some("ips"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"x".repeat(10_000), known), None);
    }

    #[test]
    fn quoting_hides_nothing_and_ends() {
        assert_eq!(quoted("a\u{202e}b\n\"c\""), r#""a\u{202e}b\n\"c\"""#);
        assert_eq!(quoted(&"y".repeat(500)).chars().count(), SHOWN + 3);
    }

    #[test]
    fn words_are_joined_as_people_do() {
        assert_eq!(one_of(&["a"]), "a");
        assert_eq!(one_of(&["a", "b", "c"]), "a, b or c");
    }
}
