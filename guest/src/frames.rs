//! Where one client's bytes end and the next one's begin.
//!
//! A host that drops its connection and makes another at once may not be seen to have gone. Its
//! next connection then begins in the middle of the stream: with HTTP/2's preface, which at the
//! place of a frame's header cannot be one (it would be longer than any frame may be).

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER: usize = 9;
/// The beginning of the preface, read as a frame's length.
const NO_LENGTH: &[u8] = b"PRI";

/// Follows the frames of one connection, from its preface on.
pub struct Frames {
    skip: usize,
    header: Vec<u8>,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            skip: PREFACE.len(),
            header: Vec::new(),
        }
    }
}

impl Frames {
    /// Returns what another client has begun to say, and how much of `bytes` is before it.
    pub fn next_client(&mut self, bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
        let mut at = 0;
        while at < bytes.len() {
            if self.skip > 0 {
                let step = self.skip.min(bytes.len() - at);
                self.skip -= step;
                at += step;
                continue;
            }
            self.header.push(bytes[at]);
            at += 1;
            if self.header == NO_LENGTH {
                let begun = [NO_LENGTH, &bytes[at..]].concat();
                return Some((at.saturating_sub(NO_LENGTH.len()), begun));
            }
            if self.header.len() == HEADER {
                self.skip = self.header[..3]
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte));
                self.header.clear();
            }
        }
        None
    }
}

/// Drops from `head` what cannot belong to a preface; true once it starts with one.
pub fn align(head: &mut Vec<u8>) -> bool {
    if let Some(at) = head.windows(PREFACE.len()).position(|w| w == PREFACE) {
        head.drain(..at);
        return true;
    }
    let keep = PREFACE.len() - 1;
    if head.len() > keep {
        head.drain(..head.len() - keep);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_client_left_is_dropped() {
        let mut head = b"rest of a frame".to_vec();
        assert!(!align(&mut head));
        head.extend_from_slice(&PREFACE[..5]);
        assert!(!align(&mut head));
        head.extend_from_slice(&PREFACE[5..]);
        head.extend_from_slice(b"more");
        assert!(align(&mut head));
        assert_eq!(head, [PREFACE, b"more"].concat());
    }

    #[test]
    fn garbage_takes_no_memory() {
        let mut head = vec![b'P'; 1 << 16];
        assert!(!align(&mut head));
        assert_eq!(head.len(), PREFACE.len() - 1);
    }

    #[test]
    fn another_client_is_seen_however_its_bytes_come() {
        let frame = [&[0, 0, 5, 0, 0, 0, 0, 0, 1][..], b"PRI *"].concat();
        let first = [PREFACE, &frame, &frame].concat();
        let second = [PREFACE, b"hello"].concat();
        let all = [&first[..], &second].concat();
        for step in 1..all.len() {
            let mut frames = Frames::default();
            let mut seen = 0;
            let found = all.chunks(step).find_map(|chunk| {
                let found = frames.next_client(chunk);
                seen += chunk.len();
                found
            });
            let (_, begun) = found.expect("another client");
            assert!(second.starts_with(&begun), "step {step}");
            assert_eq!(seen - begun.len(), first.len(), "step {step}");
        }
        assert!(Frames::default().next_client(&first).is_none());
    }
}
