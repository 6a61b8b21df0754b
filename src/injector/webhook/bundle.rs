//! Which authorities the API server is told to trust. Pure.

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::authority::CLOCK_SKEW;
use crate::tls::Validity;

/// For so many seconds after an authority was made the others are trusted, too: by then every replica
/// has heard of it, and shows a certificate of it.
const OVERLAP: i64 = 3600;

/// Authorities beside the own one. More are not of larder's making.
const MAX_OTHERS: usize = 4;

/// What the bundle is to be, as PEM; `None` where it is good as it is.
///
/// The authority of what this replica shows is in it until it shows another's, whoever took it out.
/// Others go when their time is over, or neither they nor the own one are new: a new one of another
/// replica's is in the Secret at the next look.
pub(super) fn wanted(
    bundle: &[u8],
    own: &CertificateDer<'_>,
    shown: Option<&CertificateDer<'_>>,
    now_unix: i64,
) -> Option<String> {
    let present: Vec<_> = CertificateDer::pem_slice_iter(bundle).flatten().collect();
    let made = |certificate: &CertificateDer<'_>| Some(Validity::of(certificate)?.not_before);
    let is_new = |made: i64| now_unix < made + CLOCK_SKEW + OVERLAP;
    let overlap = is_new(made(own).unwrap_or(now_unix));
    let stays = |certificate: &&CertificateDer<'_>| {
        *certificate != own
            && Validity::of(certificate).is_some_and(|validity| {
                let is_shown = shown == Some(*certificate);
                validity.not_after > now_unix
                    && (overlap || is_shown || is_new(validity.not_before))
            })
    };
    let mut others: Vec<_> = present.iter().chain(shown).filter(stays).collect();
    others.sort_by_key(|other| {
        (shown != Some(*other), std::cmp::Reverse(made(other)), other.as_ref().to_vec())
    });
    others.dedup();
    others.truncate(MAX_OTHERS);
    let is_there = |one: &CertificateDer<'_>| present.contains(one);
    let all_there = is_there(own) && others.iter().all(|other| is_there(other));
    if all_there && present.len() == others.len() + 1 {
        return None;
    }
    Some(std::iter::once(own).chain(others).map(pem).collect())
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let encoded = STANDARD.encode(certificate);
    for (place, character) in encoded.chars().enumerate() {
        if place > 0 && place % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::{super::authority::Authority, *};

    const NOW: i64 = 1_800_000_000;
    const HOUR: i64 = 3600;
    const YEAR: i64 = 365 * 24 * HOUR;

    fn made(now: i64) -> Authority {
        Authority::make(now).unwrap()
    }

    fn text(authorities: &[&Authority]) -> String {
        authorities.iter().map(|one| pem(one.certificate())).collect()
    }

    #[track_caller]
    fn check(bundle: &[&Authority], own: &Authority, now: i64, expected: Option<&[&Authority]>) {
        let wanted = wanted(text(bundle).as_bytes(), own.certificate(), None, now);
        assert_eq!(wanted, expected.map(text));
    }

    #[test]
    fn the_own_authority_is_put_in_and_then_left_alone() {
        let own = made(NOW);
        check(&[], &own, NOW, Some(&[&own]));
        check(&[&own], &own, NOW, None);
        check(&[&own], &own, NOW + 100 * HOUR, None);
        assert_eq!(
            wanted(b"Cg==\n-----BEGIN CERTIFICATE-----\nno\n", own.certificate(), None, NOW),
            Some(pem(own.certificate())),
            "what is no certificate goes",
        );
    }

    #[test]
    fn a_renewed_authority_stands_beside_the_one_before_for_a_while() {
        let (old, new) = (made(NOW), made(NOW + YEAR / 2));
        let now = NOW + YEAR / 2;
        check(&[&old], &new, now, Some(&[&new, &old]));
        check(&[&new, &old], &new, now + HOUR / 2, None);
        check(&[&old, &new], &new, now + HOUR / 2, None);
        check(&[&new, &old], &new, now + 2 * HOUR, Some(&[&new]));
    }

    #[test]
    fn a_replica_that_has_not_heard_of_a_new_authority_leaves_it_in() {
        let (old, new) = (made(NOW), made(NOW + YEAR / 2));
        check(&[&new, &old], &old, NOW + YEAR / 2, None);
        check(&[&new], &old, NOW + YEAR / 2, Some(&[&old, &new]));
    }

    #[test]
    fn what_is_shown_is_trusted_whoever_takes_it_out() {
        let (old, new) = (made(NOW), made(NOW + YEAR / 2));
        let check = |bundle: &[&Authority], now: i64, expected: Option<&[&Authority]>| {
            let shown = Some(old.certificate());
            let wanted = wanted(text(bundle).as_bytes(), new.certificate(), shown, now);
            assert_eq!(wanted, expected.map(text));
        };
        let now = NOW + YEAR / 2;
        for now in [now, now + 5 * HOUR] {
            check(&[], now, Some(&[&new, &old]));
            check(&[&new], now, Some(&[&new, &old]));
            check(&[&new, &new], now, Some(&[&new, &old]));
            check(&[&old, &new], now, None);
        }
        check(&[&new], NOW + 2 * YEAR, None);
    }

    #[test]
    fn what_a_clock_that_was_ahead_made_goes_in_the_end() {
        let (own, ahead) = (made(NOW), made(NOW + 3 * HOUR));
        check(&[&own, &ahead], &own, NOW, None);
        check(&[&own, &ahead], &own, NOW + 4 * HOUR, Some(&[&own]));
    }

    #[test]
    fn what_is_over_or_too_much_goes() {
        let (over, own) = (made(NOW - 2 * YEAR), made(NOW));
        check(&[&over, &own], &own, NOW, Some(&[&own]));
        let many: Vec<_> = (0..6).map(|age| made(NOW - age * HOUR)).collect();
        let bundle: Vec<_> = many.iter().collect();
        let own = &many[0];
        check(&bundle, own, NOW, Some(&bundle[..5]));
    }
}
