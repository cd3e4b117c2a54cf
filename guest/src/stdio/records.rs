//! Cutting a byte stream into records: whole lines, or pieces of a line that is too long.

/// The most that a record holds.
pub const RECORD_BYTES: usize = 16 << 10;

/// One record's content.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    pub data: Vec<u8>,
    /// The line goes on in a later piece.
    pub partial: bool,
}

/// Holds back the line that is not complete yet; at most RECORD_BYTES.
#[derive(Default)]
pub struct Splitter {
    held: Vec<u8>,
}

impl Splitter {
    /// Takes bytes, returns what they complete. A piece holds as many whole lines as fit.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Piece> {
        self.held.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        let mut at = 0;
        loop {
            let rest = &self.held[at..];
            let window = &rest[..rest.len().min(RECORD_BYTES)];
            let (take, partial) = match window.iter().rposition(|b| *b == b'\n') {
                Some(end) => (end + 1, false),
                None if window.len() == RECORD_BYTES => (RECORD_BYTES, true),
                None => break,
            };
            pieces.push(Piece {
                data: window[..take].to_vec(),
                partial,
            });
            at += take;
        }
        self.held.drain(..at);
        pieces
    }

    /// What is left when the stream has ended: a line whose end is implied.
    pub fn finish(&mut self) -> Option<Piece> {
        let data = std::mem::take(&mut self.held);
        (!data.is_empty()).then_some(Piece {
            data,
            partial: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(data: &[u8]) -> Piece {
        Piece {
            data: data.to_vec(),
            partial: false,
        }
    }

    #[test]
    fn lines_are_kept_together_and_whole() {
        let mut splitter = Splitter::default();
        assert!(splitter.push(b"a").is_empty());
        assert_eq!(splitter.push(b"b\nc\nd"), [whole(b"ab\nc\n")]);
        assert_eq!(splitter.finish(), Some(whole(b"d")));
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn a_long_line_goes_in_pieces() {
        let mut splitter = Splitter::default();
        let mut line = vec![b'x'; RECORD_BYTES + 3];
        line.push(b'\n');
        let pieces = splitter.push(&line);
        assert!(pieces[0].partial && pieces[0].data.len() == RECORD_BYTES);
        assert_eq!(pieces[1], whole(b"xxx\n"));
        assert!(splitter.held.is_empty());
    }

    #[test]
    fn any_split_of_the_bytes_gives_the_same_text() {
        let mut text = Vec::new();
        for n in 0..300_u32 {
            text.extend(std::iter::repeat_n(b'a', (n * 97 % 701) as usize));
            text.push(b'\n');
        }
        for step in [1, 7, 4096, 50_000] {
            let mut splitter = Splitter::default();
            let mut got = Vec::new();
            for chunk in text.chunks(step) {
                for piece in splitter.push(chunk) {
                    assert!(piece.data.len() <= RECORD_BYTES);
                    assert_eq!(piece.data.last() != Some(&b'\n'), piece.partial);
                    got.extend(piece.data);
                }
            }
            assert_eq!(got, text);
        }
    }
}
