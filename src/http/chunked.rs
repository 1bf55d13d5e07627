//! Decoding `Transfer-Encoding: chunked` (RFC 9112 §7.1), strictly and without I/O.
//!
//! httparse's chunk-size parser is not used: it reads an empty size line as 0, which is the end of
//! the body, and takes a bare LF and control bytes inside an extension.

use crate::limits::{
    CHUNK_EXTENSION_BYTES_MAX, CHUNK_EXTENSIONS_BYTES_MAX, CHUNK_SIZE_DIGITS_MAX, TRAILER_BYTES_MAX,
};

/// Decodes one chunked body from slices of any length. Extensions and trailers are checked and
/// dropped. Memory: a few words, whatever comes.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// Bytes of chunk data still to come.
    left: u64,
    size_digits: usize,
    extension_bytes: usize,
    extensions_bytes: usize,
    trailer_bytes: usize,
}

/// What [`ChunkedDecoder::advance`] found. It is called again with the rest of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `input[skip..skip + len]` is body; `len` is not 0.
    Data {
        /// Framing bytes before the body bytes.
        skip: usize,
        /// How many body bytes.
        len: usize,
    },
    /// All input was framing; give more.
    More,
    /// The body is complete; what follows `input[..consumed]` is the next request.
    End {
        /// Bytes of this input that belong to the body.
        consumed: usize,
    },
}

/// Why a chunked body is refused: answer 400 if still possible, and close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// No hexadecimal digit, or something else behind the digits.
    #[error("a chunk must begin with its size in hexadecimal digits")]
    Size,
    /// More than [`CHUNK_SIZE_DIGITS_MAX`] digits.
    #[error("a chunk size has more than {CHUNK_SIZE_DIGITS_MAX} digits")]
    SizeTooLong,
    /// Not tokens and quoted strings.
    #[error("a chunk extension is not ;name, ;name=token or ;name=\"text\"")]
    Extension,
    /// Over one of the two caps on extensions.
    #[error(
        "chunk extensions may have {CHUNK_EXTENSION_BYTES_MAX} bytes in one chunk and \
         {CHUNK_EXTENSIONS_BYTES_MAX} in one message"
    )]
    ExtensionsTooLong,
    /// A line that doesn't end with CR LF, or chunk data longer than its size.
    #[error("a chunk, a chunk size or a trailer line does not end with CR LF")]
    LineEnd,
    /// A trailer that is not `name: value`.
    #[error("a trailer line is not: name, colon, value")]
    Trailer,
    /// Over [`TRAILER_BYTES_MAX`].
    #[error("the trailers have more than {TRAILER_BYTES_MAX} bytes")]
    TrailersTooLong,
    /// Called again after an error.
    #[error("the chunked body was refused before")]
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Size,
    ExtensionNameStart,
    ExtensionName,
    ExtensionValueStart,
    ExtensionToken,
    ExtensionQuoted,
    ExtensionQuotedPair,
    ExtensionQuotedEnd,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
    Refused,
}

impl ChunkedDecoder {
    /// A decoder before the first byte of a body.
    pub fn new() -> Self {
        Self {
            state: State::Size,
            left: 0,
            size_digits: 0,
            extension_bytes: 0,
            extensions_bytes: 0,
            trailer_bytes: 0,
        }
    }

    /// Whether the body has ended.
    pub fn is_complete(&self) -> bool {
        self.state == State::End
    }

    /// Reads `input` up to the next body bytes, the end of the body, or its own end.
    ///
    /// # Errors
    /// See [`ChunkError`]; the decoder stays refused.
    pub fn advance(&mut self, input: &[u8]) -> Result<Step, ChunkError> {
        for (at, byte) in input.iter().enumerate() {
            match self.state {
                State::End => return Ok(Step::End { consumed: at }),
                State::Data => return Ok(self.data(at, input.len() - at)),
                state => match self.framing(state, *byte) {
                    Ok(next) => self.state = next,
                    Err(error) => {
                        self.state = State::Refused;
                        return Err(error);
                    }
                },
            }
        }
        Ok(if self.is_complete() { Step::End { consumed: input.len() } } else { Step::More })
    }

    fn data(&mut self, skip: usize, available: usize) -> Step {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(available);
        self.left -= len as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
        Step::Data { skip, len }
    }

    /// The state after one byte that is not chunk data.
    fn framing(&mut self, state: State, byte: u8) -> Result<State, ChunkError> {
        match (state, byte) {
            (State::Size, _) => self.size(byte),
            (State::SizeLf, b'\n') => Ok(self.after_size_line()),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                (self.size_digits, self.extension_bytes) = (0, 0);
                Ok(State::Size)
            }
            (State::EndLf, b'\n') => Ok(State::End),
            (State::SizeLf | State::DataCr | State::DataLf | State::EndLf, _) => {
                Err(ChunkError::LineEnd)
            }
            (
                State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf,
                _,
            ) => self.trailer(state, byte),
            // Data and End never come here.
            (State::Data | State::End | State::Refused, _) => Err(ChunkError::Refused),
            _ => self.extension(state, byte),
        }
    }

    fn size(&mut self, byte: u8) -> Result<State, ChunkError> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            if self.size_digits == CHUNK_SIZE_DIGITS_MAX {
                return Err(ChunkError::SizeTooLong);
            }
            self.size_digits += 1;
            self.left = self.left << 4 | u64::from(digit);
            return Ok(State::Size);
        }
        match byte {
            _ if self.size_digits == 0 => Err(ChunkError::Size),
            b'\r' => Ok(State::SizeLf),
            b'\n' => Err(ChunkError::LineEnd),
            b';' => self.count_extension(State::ExtensionNameStart),
            _ => Err(ChunkError::Size),
        }
    }

    fn after_size_line(&self) -> State {
        if self.left == 0 { State::TrailerStart } else { State::Data }
    }

    /// `*( ";" token [ "=" ( token / quoted-string ) ] )`, without the white space that the RFC
    /// calls bad, and without bytes outside ASCII.
    fn extension(&mut self, state: State, byte: u8) -> Result<State, ChunkError> {
        use State as S;
        let next = match (state, byte) {
            (S::ExtensionNameStart | S::ExtensionName, _) if is_token(byte) => S::ExtensionName,
            (S::ExtensionName, b'=') => S::ExtensionValueStart,
            (S::ExtensionValueStart | S::ExtensionToken, _) if is_token(byte) => S::ExtensionToken,
            (S::ExtensionValueStart, b'"') => S::ExtensionQuoted,
            (S::ExtensionQuoted, b'"') => S::ExtensionQuotedEnd,
            (S::ExtensionQuoted, b'\\') => S::ExtensionQuotedPair,
            (S::ExtensionQuoted | S::ExtensionQuotedPair, b'\t' | b' '..=b'~') => {
                S::ExtensionQuoted
            }
            (S::ExtensionName | S::ExtensionToken | S::ExtensionQuotedEnd, b';') => {
                S::ExtensionNameStart
            }
            (S::ExtensionName | S::ExtensionToken | S::ExtensionQuotedEnd, b'\r') => {
                return Ok(S::SizeLf);
            }
            (_, b'\n') => return Err(ChunkError::LineEnd),
            _ => return Err(ChunkError::Extension),
        };
        self.count_extension(next)
    }

    fn count_extension(&mut self, next: State) -> Result<State, ChunkError> {
        self.extension_bytes += 1;
        self.extensions_bytes += 1;
        if self.extension_bytes > CHUNK_EXTENSION_BYTES_MAX
            || self.extensions_bytes > CHUNK_EXTENSIONS_BYTES_MAX
        {
            return Err(ChunkError::ExtensionsTooLong);
        }
        Ok(next)
    }

    fn trailer(&mut self, state: State, byte: u8) -> Result<State, ChunkError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(ChunkError::TrailersTooLong);
        }
        match (state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart | State::TrailerName, _) if is_token(byte) => {
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::TrailerLf, _) | (_, b'\n') => Err(ChunkError::LineEnd),
            _ => Err(ChunkError::Trailer),
        }
    }
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self::new()
    }
}

/// `tchar` (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
