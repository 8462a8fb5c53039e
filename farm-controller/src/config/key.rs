//! Key files: 32 secret bytes as 64 hex digits, readable by their owner only.

use std::path::Path;

use super::error::ConfigError;

/// 32 bytes from 64 hex digits.
#[must_use]
pub fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// 64 hex digits of 32 bytes.
#[must_use]
pub fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a secret key.
///
/// # Errors
/// [`ConfigError::Unreadable`] when it is absent, no key, or others can read it.
pub fn read_secret(path: &Path) -> Result<[u8; 32], ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable { path: path.to_path_buf(), reason };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(unreadable(format!("mode {mode:o} lets others read it; expected 600")));
        }
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    parse_hex(&text).ok_or_else(|| unreadable("is no key; expected 64 hex digits".into()))
}

/// Reads a bearer token: one line of visible ASCII.
///
/// # Errors
/// Why not, in one line.
pub fn read_token(path: &Path) -> Result<String, String> {
    let token = read_line(path)?;
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("holds no token; expected one line of visible ASCII".to_owned());
    }
    Ok(token)
}

/// Reads a short text, like a password, without the space around it.
///
/// # Errors
/// Why not, in one line.
pub fn read_line(path: &Path) -> Result<String, String> {
    /// Longest token or password; a file that is larger is another one.
    const LINE_BYTES_MAX: u64 = 4_096;
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > LINE_BYTES_MAX {
        return Err(format!("is {size} bytes; at most {LINE_BYTES_MAX} are read"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    Ok(text.trim().to_owned())
}

/// Makes a new secret key and writes it with mode 0600; an existing file is left alone and read.
///
/// # Errors
/// [`ConfigError::Unreadable`] when there is no entropy or the file cannot be written.
pub fn read_or_create_secret(path: &Path) -> Result<[u8; 32], ConfigError> {
    use std::io::Write as _;
    if path.exists() {
        return read_secret(path);
    }
    let unreadable = |reason: String| ConfigError::Unreadable { path: path.to_path_buf(), reason };
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret).map_err(|error| unreadable(error.to_string()))?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path).map_err(|error| unreadable(error.to_string()))?;
    writeln!(file, "{}", hex(&secret)).map_err(|error| unreadable(error.to_string()))?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        let key = read_or_create_secret(&path).unwrap();
        assert_eq!(read_or_create_secret(&path).unwrap(), key);
        assert_eq!(parse_hex(&hex(&key)), Some(key));
        assert_eq!(parse_hex("zz"), None);
    }
}
