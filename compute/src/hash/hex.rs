//! Hexadecimal text of hashes, headers and Stratum fields.

use super::HashError;

/// Lower-case digits of `bytes`.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of an even number of hexadecimal digits; `field` names the text in the error.
///
/// # Errors
/// Anything but pairs of digits, or more than `bytes_max` bytes.
pub fn decode(field: &str, text: &str, bytes_max: usize) -> Result<Vec<u8>, HashError> {
    let refuse = |why: String| Err(HashError::Field { field: field.into(), why });
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return refuse(format!("{} hex digits, expected an even number", digits.len()));
    }
    if digits.len() / 2 > bytes_max {
        return refuse(format!("{} bytes, at most {bytes_max} are read", digits.len() / 2));
    }
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for (place, pair) in digits.chunks_exact(2).enumerate() {
        match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => bytes.push((high << 4) | low),
            (None, _) | (_, None) => return refuse(format!("no hex digits at byte {place}")),
        }
    }
    Ok(bytes)
}

/// Exactly `N` bytes of hexadecimal.
///
/// # Errors
/// As [`decode`], and any other length.
pub fn decode_exact<const N: usize>(field: &str, text: &str) -> Result<[u8; N], HashError> {
    let bytes = decode(field, text, N)?;
    <[u8; N]>::try_from(bytes.as_slice()).map_err(|_| HashError::Field {
        field: field.into(),
        why: format!("{} bytes, expected {N}", bytes.len()),
    })
}

fn digit(character: u8) -> Option<u8> {
    char::from(character).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_survives_a_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(decode("x", &encode(&bytes), 64).unwrap(), bytes);
        }

        #[test]
        fn hostile_text_never_panics(text in ".{0,40}") {
            let _ = decode("x", &text, 8);
            let _ = decode_exact::<4>("x", &text);
        }
    }
}
