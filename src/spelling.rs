//! What somebody probably meant who wrote a word that is not known.

/// The word of `known` that is so near to `word` that it was probably meant.
///
/// Takes time in the order of their lengths multiplied: whoever takes words from strangers bounds
/// them first.
pub(crate) fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, candidate) = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + word.chars().count() / 4).then_some(candidate)
}
