//! "Did you mean": the word that was meant, if it is near enough to say so.

/// The one of `words` that `typed` was probably meant to be.
pub(super) fn nearest<'w>(typed: &str, words: impl IntoIterator<Item = &'w str> + Clone) -> Option<&'w str> {
    // Nobody mistypes a word into a much longer one, and comparing costs the product of the lengths.
    if typed.len() > 64 {
        return None;
    }
    let typed = typed.to_lowercase().replace('-', "_");
    words
        .clone()
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&typed, word), word))
        .filter(|(distance, word)| *distance <= tolerance(word))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
        .or_else(|| words.into_iter().find(|word| typed.len() >= 3 && word.starts_with(&typed)))
}

/// How many slips of the finger a word may suffer and still be known: a third of its letters.
fn tolerance(word: &str) -> usize {
    (word.len() / 3).clamp(1, 4)
}
