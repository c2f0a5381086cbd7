//! What goes in comes out; what did not come from here does no harm.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use bytemuck::{CheckedBitPattern, NoUninit};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Clone, Copy, Debug, Default, PartialEq, NoUninit, CheckedBitPattern)]
#[repr(C)]
struct Point {
    x: f64,
    y: f32,
    level: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
#[repr(u8)]
enum Colour {
    Red = 1,
    Green = 2,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Command {
    Quit,
    Rename(String),
    Resize { width: u32, height: Option<i16> },
    Mix(u8, char, Box<Command>),
    Paint(Plain<[f32; 4]>),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Everything {
    small: (i8, u8, bool, char),
    signed: (i16, i32, i64, i128),
    unsigned: (u16, u32, u64, u128),
    real: (f32, f64),
    text: String,
    bytes: Vec<u8>,
    option: Option<Option<u32>>,
    result: Vec<Result<u8, String>>,
    map: BTreeMap<String, Vec<i64>>,
    unit: (),
    array: [u16; 3],
}

/// A chain as long as one likes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Chain {
    number: u64,
    next: Option<Box<Chain>>,
}

/// A tree all of whose bytes are lengths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tree(Vec<Tree>);

fn to_bytes<T: Message>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let needed = encode(value, &mut bytes).unwrap();
    assert_eq!(needed, bytes.len());
    assert_eq!(needed, encode(value, &mut Count).unwrap());
    bytes
}

/// Encodes, decodes, and tries every shorter and one longer message.
#[track_caller]
fn round<T: Message + PartialEq + Debug>(value: T) {
    let bytes = to_bytes(&value);
    assert_eq!(decode::<T>(&bytes).as_ref(), Ok(&value));
    if let Some(size) = fixed_size::<T>() {
        assert_eq!(bytes.len(), size);
        assert!((0..size).all(|len| decode::<T>(&bytes[..len]).is_err()));
        assert!(decode::<T>(&[&bytes[..], &[0]].concat()).is_err());
    }
}

/// A sink of words, as a slot is.
#[derive(Default)]
struct Words(Vec<u64>);

impl Sink for Words {
    fn put(&mut self, bytes: &[u8]) {
        panic!("{} bytes that are no word", bytes.len());
    }

    fn put_word(&mut self, word: u64, _: usize) {
        self.0.push(word);
    }
}

#[test]
fn numbers_travel_raw() {
    assert_eq!(to_bytes(&0x0102_0304_u32), 0x0102_0304_u32.to_ne_bytes());
    assert_eq!(to_bytes(&1.5_f64), 1.5_f64.to_ne_bytes());
    assert_eq!(
        to_bytes(&[1_u16, 2]),
        [1_u16, 2].map(u16::to_ne_bytes).concat()
    );
    assert_eq!(to_bytes(&vec![1_u16, 2]), to_bytes(&[1_u16, 2]));
    assert_eq!(to_bytes(&"text".to_owned()), b"text");
    assert_eq!(to_bytes(&vec![7_u8; 5]), [7; 5]);
    assert_eq!(to_bytes(&Plain(Colour::Green)), [2]);
}

#[test]
fn a_number_is_one_word() {
    let mut words = Words::default();
    encode(&u64::MAX, &mut words).unwrap();
    encode(&1.0_f64, &mut words).unwrap();
    encode(&-1_i16, &mut words).unwrap();
    encode(&'x', &mut words).unwrap();
    encode(&[1_u8, 2, 3], &mut words).unwrap();
    encode(&Plain([1_u32, 2]), &mut words).unwrap();
    let mut pair = [0; 8];
    pair[..4].copy_from_slice(&1_u32.to_ne_bytes());
    pair[4..].copy_from_slice(&2_u32.to_ne_bytes());
    let mut short = [0; 8];
    short[..3].copy_from_slice(&[1, 2, 3]);
    let mut minus = [0; 8];
    minus[..2].copy_from_slice(&[0xFF; 2]);
    let mut letter = [0; 8];
    letter[..4].copy_from_slice(&u32::from('x').to_ne_bytes());
    let expected = [[0xFF; 8], 1.0_f64.to_ne_bytes(), minus, letter, short, pair];
    assert_eq!(words.0, expected.map(u64::from_ne_bytes));
}

#[test]
fn scalars_and_arrays_round() {
    macro_rules! extremes {
        ($($number:ty)*) => { $(
            for number in [<$number>::MIN, <$number>::MAX, 0 as $number, 1 as $number] {
                round(number);
                round([number; 1]);
                round([number, 0 as $number, number]);
                round([number; 32]);
                round(vec![number; 5]);
                round(Vec::<$number>::new());
                round((number, Plain(number)));
            }
        )* };
    }
    extremes!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64);
    for flag in [false, true] {
        round(flag);
        round([flag; 9]);
        round(vec![flag; 9]);
    }
    for letter in ['\0', 'a', 'é', '\u{D7FF}', '\u{E000}', char::MAX] {
        round(letter);
        round([letter; 9]);
        round(vec![letter; 9]);
        round((letter, letter));
    }
    round([[1_u32; 2]; 3]);
    round(vec![[1.5_f64; 4]; 3]);
    round(Plain([7_u16; 64]));
}

#[test]
fn everything_rounds() {
    round(());
    round([(); 3]);
    round(vec![(); 1000]);
    round([0_u8; 0]);
    round(String::new());
    round("grüße".to_owned());
    round(Everything::default());
    round(Command::Mix(
        1,
        'ß',
        Box::new(Command::Resize {
            width: 1,
            height: Some(-1),
        }),
    ));
    round(vec![
        Command::Quit,
        Command::Rename("x".into()),
        Command::Paint(Plain([0.5; 4])),
    ]);
    round(Plain(Point {
        x: 1.0,
        y: 2.0,
        level: 3,
    }));
    round(vec![
        Plain(Point {
            x: 1.0,
            y: 2.0,
            level: 3
        });
        100
    ]);
    round((Plain(()), vec![Plain(()); 10]));
    round(HashMap::from([
        (1_u8, "one".to_owned()),
        (2, "two".to_owned()),
    ]));
    round(std::time::Duration::from_nanos(1_234_567_890_123));
    round(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
    round(Err::<u8, EncodeError>(EncodeError::SkippedField(
        "name".into(),
    )));
    round(DecodeError::Truncated { needed: 8, left: 3 });
}

#[test]
fn the_bits_of_a_number_that_is_none_are_kept() {
    for bits in [
        f64::NAN.to_bits(),
        0x7FF0_0000_0000_0001,
        0xFFF8_0000_DEAD_BEEF,
    ] {
        let nan = f64::from_bits(bits);
        assert_eq!(decode::<f64>(&to_bytes(&nan)).unwrap().to_bits(), bits);
        assert_eq!(
            decode::<Vec<f64>>(&to_bytes(&vec![nan; 3])).unwrap()[2].to_bits(),
            bits
        );
        assert_eq!(
            decode::<(u8, f64)>(&to_bytes(&(1_u8, nan)))
                .unwrap()
                .1
                .to_bits(),
            bits
        );
        assert_eq!(
            decode::<Plain<f64>>(&to_bytes(&Plain(nan)))
                .unwrap()
                .to_bits(),
            bits
        );
    }
}

#[test]
fn bits_that_are_no_value_are_refused() {
    assert_eq!(decode::<bool>(&[2]), Err(DecodeError::InvalidBits));
    assert_eq!(
        decode::<[bool; 3]>(&[0, 1, 2]),
        Err(DecodeError::InvalidBits)
    );
    assert_eq!(
        decode::<Vec<bool>>(&[0, 1, 2]),
        Err(DecodeError::InvalidBits)
    );
    assert_eq!(
        decode_vec::<bool>(&[0, 1, 2], 3),
        Err(DecodeError::InvalidBits)
    );
    assert_eq!(decode::<(bool,)>(&[2]), Err(DecodeError::InvalidBits));
    assert_eq!(decode::<Option<u8>>(&[2, 0]), Err(DecodeError::InvalidBits));
    for bits in [0xD800_u32, 0x11_0000] {
        assert_eq!(
            decode::<char>(&bits.to_ne_bytes()),
            Err(DecodeError::InvalidBits)
        );
        // Whether the bytes lie right for a `char` or not.
        for skip in 0..4 {
            let bytes = [&[0; 4][..skip], &bits.to_ne_bytes()].concat();
            assert_eq!(
                decode::<Vec<char>>(&bytes[skip..]),
                Err(DecodeError::InvalidBits)
            );
        }
    }
    assert_eq!(decode::<Plain<Colour>>(&[1]), Ok(Plain(Colour::Red)));
    assert_eq!(decode::<Plain<Colour>>(&[3]), Err(DecodeError::InvalidBits));
    assert_eq!(
        decode::<(u8, Plain<Colour>)>(&[1, 3]),
        Err(DecodeError::InvalidBits)
    );
    assert_eq!(
        decode_vec::<Plain<Colour>>(&[1, 3], 2),
        Err(DecodeError::InvalidBits)
    );
    let surrogate = 0xD800_u32.to_ne_bytes();
    assert_eq!(decode::<(char,)>(&surrogate), Err(DecodeError::InvalidBits));
    assert_eq!(decode::<String>(&[0xFF]), Err(DecodeError::InvalidText));
    assert_eq!(
        decode::<(String,)>(&[1, 0xFF]),
        Err(DecodeError::InvalidText)
    );
    assert!(
        matches!(decode::<Command>(&[9]), Err(DecodeError::Refused(why)) if why.contains("variant index"))
    );
    assert!(matches!(
        decode::<std::num::NonZeroU8>(&[0]),
        Err(DecodeError::Refused(_))
    ));
}

#[test]
fn lengths_must_be_right() {
    assert_eq!(
        decode::<u64>(&[0; 7]),
        Err(DecodeError::Truncated { needed: 8, left: 7 })
    );
    assert_eq!(
        decode::<u64>(&[0; 9]),
        Err(DecodeError::Trailing { left: 1 })
    );
    assert_eq!(
        decode::<Vec<u64>>(&[0; 17]),
        Err(DecodeError::Trailing { left: 1 })
    );
    assert_eq!(
        decode::<Plain<u64>>(&[0; 7]),
        Err(DecodeError::Truncated { needed: 8, left: 7 })
    );
    assert_eq!(
        decode::<Plain<u64>>(&[0; 9]),
        Err(DecodeError::Trailing { left: 1 })
    );
    assert_eq!(decode::<()>(&[0]), Err(DecodeError::Trailing { left: 1 }));
    assert_eq!(
        decode::<(u8, u8)>(&[0; 3]),
        Err(DecodeError::Trailing { left: 1 })
    );
    // A length, and a variant.
    assert_eq!(
        decode::<(String,)>(&[0xFF; 11]),
        Err(DecodeError::InvalidNumber)
    );
    let variant = |last| [0xFF, 0xFF, 0xFF, 0xFF, last];
    assert_eq!(
        decode::<Command>(&variant(0x10)),
        Err(DecodeError::InvalidNumber)
    );
    assert!(matches!(
        decode::<Command>(&variant(0x0F)),
        Err(DecodeError::Refused(_))
    ));
}

#[test]
fn a_sink_that_is_full_holds_a_prefix() {
    let value = (7_u8, "a longer text".to_owned(), vec![1_u16, 2, 3]);
    let all = to_bytes(&value);
    for room in 0..all.len() + 2 {
        let mut place = vec![0xEE; room + 4];
        let needed = encode(&value, &mut &mut place[..room]).unwrap();
        assert_eq!(needed, all.len());
        let fits = room.min(needed);
        assert_eq!(place[..fits], all[..fits]);
        assert!(place[fits..].iter().all(|&byte| byte == 0xEE));
    }
}

#[test]
fn claimed_lengths_are_not_believed() {
    let huge = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
    assert!(matches!(
        decode::<(String,)>(&huge),
        Err(DecodeError::Truncated { left: 0, .. })
    ));
    assert!(matches!(
        decode::<(Vec<u8>,)>(&huge),
        Err(DecodeError::Truncated { .. })
    ));
    assert!(matches!(
        decode::<Vec<Plain<[f64; 4]>>>(&huge),
        Err(DecodeError::Truncated { .. })
    ));
    assert!(matches!(
        decode::<Vec<Vec<u8>>>(&huge),
        Err(DecodeError::Truncated { .. })
    ));
    assert!(matches!(
        decode::<HashMap<u64, u64>>(&huge),
        Err(DecodeError::Truncated { .. })
    ));
    let limit = DecodeError::TooManyEmpty { limit: EMPTY_LIMIT };
    assert_eq!(decode::<Vec<()>>(&huge), Err(limit.clone()));
    assert_eq!(decode::<HashMap<(), ()>>(&huge), Err(limit.clone()));
    assert_eq!(decode::<Vec<Forgetful>>(&huge), Err(limit.clone()));
    assert_eq!(
        decode::<Vec<Vec<()>>>(&[&[1], &huge[..]].concat()),
        Err(limit)
    );
    assert_eq!(
        decode_vec::<u64>(&[0; 16], usize::MAX),
        Err(DecodeError::Truncated {
            needed: usize::MAX,
            left: 16
        })
    );
    assert_eq!(
        decode_vec::<(u64,)>(&[0; 16], usize::MAX),
        Err(DecodeError::Truncated { needed: 8, left: 0 })
    );
}

/// Large in memory, nothing in a message.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Forgetful {
    #[serde(skip)]
    cache: [u64; 32],
}

#[test]
fn memory_is_reserved_only_for_bytes_that_may_come() {
    /// Says how much it was told to expect.
    #[derive(Debug)]
    struct Told(Option<usize>);

    impl Serialize for Told {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(0..self.0.unwrap_or(0) as u8)
        }
    }

    impl<'de> Deserialize<'de> for Told {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Look;

            impl<'de> serde::de::Visitor<'de> for Look {
                type Value = Told;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a sequence")
                }

                fn visit_seq<A: serde::de::SeqAccess<'de>>(
                    self,
                    mut seq: A,
                ) -> Result<Told, A::Error> {
                    let told = Told(seq.size_hint());
                    while let Ok(Some(_)) = seq.next_element::<u8>() {}
                    Ok(told)
                }
            }

            deserializer.deserialize_seq(Look)
        }
    }

    assert_eq!(decode::<Told>(&[3, 0, 0, 0]).unwrap().0, Some(3));
    assert_eq!(decode::<Told>(&[100, 0, 0, 0]).unwrap().0, None);
    // Two claims that are possible alone but not together.
    let (first, second) = decode::<(Told, Told)>(&[3, 0, 0, 0, 9]).unwrap();
    assert_eq!((first.0, second.0), (Some(3), None));
}

/// As [`Vec<T>`], but with a visitor of its own that sees every element, and doubles it.
#[derive(Debug, PartialEq)]
struct Doubled(Vec<u8>);

impl Serialize for Doubled {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|number| number / 2))
    }
}

impl<'de> Deserialize<'de> for Doubled {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Double;

        impl<'de> serde::de::Visitor<'de> for Double {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("numbers")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Vec<u8>, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = seq.next_element::<u8>()? {
                    numbers.push(2 * number);
                }
                Ok(numbers)
            }
        }

        deserializer.deserialize_seq(Double).map(Doubled)
    }
}

#[test]
fn numbers_inside_are_the_same_bytes_however_they_are_written() {
    /// Written and read element by element, whatever it is.
    #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Each<T>(T);

    macro_rules! all {
        ($($number:ty: $values:expr;)*) => { $(
            let numbers: Vec<$number> = $values.into();
            let each: Vec<Each<$number>> = numbers.iter().copied().map(Each).collect();
            // At each place that they may have in memory.
            for skip in 0..size_of::<$number>() {
                let bytes = to_bytes(&(vec![0_u8; skip], numbers.clone()));
                assert_eq!(bytes, to_bytes(&(vec![Each(0_u8); skip], each.clone())));
                let read = decode::<(Vec<u8>, Vec<$number>)>(&bytes).unwrap();
                assert_eq!((read.0.len(), &read.1), (skip, &numbers));
                let read = decode::<(Vec<u8>, Box<[$number]>)>(&bytes).unwrap();
                assert_eq!(*read.1, *numbers);
                let read = decode::<(Vec<Each<u8>>, Vec<Each<$number>>)>(&bytes).unwrap();
                assert_eq!(read.1, each);
                let short = &bytes[..bytes.len() - 1];
                assert!(decode::<(Vec<u8>, Vec<$number>)>(short).is_err());
            }
            let boxed: std::borrow::Cow<'static, [$number]> = numbers.clone().into();
            round((Some(numbers.clone()), Ok::<_, ()>(vec![numbers; 3]), boxed));
        )* };
    }
    all! {
        u8: [0, 1, 0xFF]; u16: [0, 1, 0xFFFE]; u32: [0, 1, u32::MAX]; u64: [0, 1, u64::MAX];
        u128: [0, 1, u128::MAX]; usize: [0, 1, usize::MAX]; isize: [0, -1, isize::MIN];
        i8: [0, -1, i8::MIN]; i16: [0, -1, i16::MIN]; i32: [0, -1, i32::MIN]; i64: [0, -1, i64::MIN];
        i128: [0, -1, i128::MIN]; f32: [0.0, -1.5, f32::MAX]; f64: [0.0, -1.5, f64::MAX];
        bool: [true, false, true]; char: ['a', 'é', char::MAX];
    }
}

#[test]
fn a_visitor_that_looks_at_each_number_sees_each() {
    let bytes = to_bytes(&(1_u8, Doubled(vec![2, 4, 6])));
    assert_eq!(bytes, [1, 3, 1, 2, 3]);
    assert_eq!(
        decode::<(u8, Doubled)>(&bytes),
        Ok((1, Doubled(vec![2, 4, 6])))
    );
    assert_eq!(decode::<(u8, Vec<u8>)>(&bytes), Ok((1, vec![1, 2, 3])));
}

#[test]
fn numbers_inside_may_be_borrowed_where_they_are_written() {
    // No message, but what a message may be made of: its `Serialize` sees lifetimes of any length.
    fn write(numbers: &(impl Serialize + ?Sized)) -> Vec<u8> {
        let mut bytes = Vec::new();
        numbers.serialize(&mut Writer::new(&mut bytes)).unwrap();
        bytes
    }

    let numbers = vec![1_u16, 2, 3];
    let expected = [&[3][..], bytemuck::cast_slice(&numbers)].concat();
    assert_eq!(write(&numbers), expected);
    assert_eq!(write(&&numbers[..]), expected);
    assert_eq!(write(&std::borrow::Cow::Borrowed(&numbers[..])), expected);
    assert_eq!(write(&std::sync::RwLock::new(&numbers)), expected);
    assert_eq!(write(&Box::new(&*numbers)), expected);
    // References to what only looks alike.
    assert_eq!(write(&vec![&1_u8, &2]), [2, 1, 2]);
    assert_eq!(write(&[&numbers, &numbers][..])[0], 2);
}

#[test]
fn numbers_inside_are_checked() {
    assert_eq!(
        decode::<(Vec<bool>,)>(&[3, 0, 1, 2]),
        Err(DecodeError::InvalidBits)
    );
    for skip in 0..4 {
        let bytes = [
            &[skip as u8][..],
            &[0; 4][..skip],
            &[1],
            &0xD800_u32.to_ne_bytes(),
        ]
        .concat();
        assert_eq!(
            decode::<(Vec<u8>, Vec<char>)>(&bytes),
            Err(DecodeError::InvalidBits)
        );
    }
    assert_eq!(
        decode::<(Vec<u64>,)>(&[&[2], &[0; 15][..]].concat()),
        Err(DecodeError::Truncated {
            needed: 16,
            left: 15
        })
    );
    // A sequence is a level, also one of numbers.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Nest(Option<Box<Nest>>, Vec<u8>);
    let nest = (1..LEVEL_LIMIT / 2).fold(Nest(None, vec![7]), |nest, _| {
        Nest(Some(Box::new(nest)), Vec::new())
    });
    let bytes = to_bytes(&nest);
    assert_eq!(
        decode::<(Nest,)>(&bytes),
        Err(DecodeError::TooDeep { limit: LEVEL_LIMIT })
    );
    assert_eq!(decode::<Nest>(&bytes).as_ref(), Ok(&nest));
    assert_eq!(
        encode(&(nest,), &mut Count),
        Err(EncodeError::TooDeep { limit: LEVEL_LIMIT })
    );
}

#[test]
fn nesting_is_bounded_on_both_sides() {
    fn chain(links: usize) -> Chain {
        (1..links).fold(Chain::default(), |next, _| Chain {
            number: 1,
            next: Some(Box::new(next)),
        })
    }

    // A struct and a `Some` for each link; the last has no `Some`.
    round(chain(LEVEL_LIMIT / 2));
    let error = encode(&chain(LEVEL_LIMIT / 2 + 1), &mut Count);
    assert_eq!(error, Err(EncodeError::TooDeep { limit: LEVEL_LIMIT }));

    let limit = DecodeError::TooDeep { limit: LEVEL_LIMIT };
    assert_eq!(decode::<Chain>(&[1; 1_000_000]), Err(limit.clone()));
    assert_eq!(decode::<Tree>(&[1; 1_000_000]), Err(limit.clone()));
    let mix = [&[3, 0][..], &u32::from('x').to_ne_bytes()].concat();
    assert_eq!(
        decode::<Vec<Command>>(&[&[1][..], &mix.repeat(1000)].concat()),
        Err(limit)
    );
}

#[test]
fn what_a_reader_would_refuse_is_not_sent() {
    #[derive(Serialize, Deserialize)]
    struct Skips {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        name: Option<String>,
    }

    #[derive(Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        rest: BTreeMap<String, u8>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u8),
    }

    #[derive(Deserialize)]
    struct Stubborn;

    impl Serialize for Stubborn {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }

    let encode = |result: Result<usize, EncodeError>| result.unwrap_err();
    assert_eq!(
        encode(super::encode(&Skips { name: None }, &mut Count)),
        EncodeError::SkippedField("name".into())
    );
    assert!(
        super::encode(
            &Skips {
                name: Some("x".into())
            },
            &mut Count
        )
        .is_ok()
    );
    assert_eq!(
        encode(super::encode(
            &Flat {
                rest: BTreeMap::new()
            },
            &mut Count
        )),
        EncodeError::UnknownLength
    );
    assert_eq!(
        encode(super::encode(&Stubborn, &mut Count)),
        EncodeError::Refused("not today".into())
    );
    assert_eq!(
        encode(super::encode(&vec![(); EMPTY_LIMIT + 1], &mut Count)),
        EncodeError::TooManyEmpty { limit: EMPTY_LIMIT }
    );
    round(vec![(); EMPTY_LIMIT]);
    assert_eq!(
        encode(super::encode(&Untagged::Number(1), &mut Count)),
        EncodeError::Unreadable {
            of: std::any::type_name::<Untagged>().to_owned(),
            part: String::new(),
        }
    );
    assert!(matches!(
        decode::<Untagged>(&[1]),
        Err(DecodeError::NotSelfDescribing)
    ));
}

#[test]
fn slices_round() {
    fn round<T: Message + PartialEq + Debug + Clone>(item: T) {
        for count in [0, 1, 63, 64, 65, 200] {
            let items = vec![item.clone(); count];
            let mut bytes = vec![0xEE];
            let needed = encode_slice(&items, &mut bytes).unwrap();
            assert_eq!(needed, bytes.len() - 1);
            assert_eq!(needed, encode_slice(&items, &mut Count).unwrap());
            assert_eq!(decode_vec::<T>(&bytes[1..], count).as_ref(), Ok(&items));
            if count > 0 && needed > 0 {
                assert!(decode_vec::<T>(&bytes[1..], count - 1).is_err());
                assert!(decode_vec::<T>(&bytes[1..needed], count).is_err());
                assert!(decode_vec::<T>(&bytes[1..], count + 1).is_err());
            }
            if let Some(size) = fixed_size::<T>() {
                assert_eq!(needed, count * size);
                for bytes in bytes[1..].chunks_exact(size.max(1)) {
                    assert_eq!(decode::<T>(bytes).as_ref(), Ok(&item));
                }
            }
        }
    }

    round(7_u8);
    round(7_u64);
    round(0.5_f32);
    round('x');
    round(true);
    round([1_i32, 2, 3]);
    round(());
    round(Plain(()));
    round(Plain(Point {
        x: 1.0,
        y: 2.0,
        level: 3,
    }));
    round("text".to_owned());
    round(vec![1_u16, 2]);
    round((1_u8, "x".to_owned()));
    round(Command::Quit);
}

#[test]
fn sizes_are_known_before() {
    assert_eq!(fixed_size::<u8>(), Some(1));
    assert_eq!(fixed_size::<char>(), Some(4));
    assert_eq!(fixed_size::<u128>(), Some(16));
    assert_eq!(fixed_size::<usize>(), Some(8));
    assert_eq!(fixed_size::<[f64; 32]>(), Some(256));
    assert_eq!(fixed_size::<Plain<Point>>(), Some(16));
    assert_eq!(fixed_size::<Plain<()>>(), Some(0));
    assert_eq!(fixed_size::<Plain<[u8; 4096]>>(), Some(4096));
    assert_eq!(fixed_size::<()>(), None);
    assert_eq!(fixed_size::<String>(), None);
    assert_eq!(fixed_size::<Vec<u8>>(), None);
    assert_eq!(fixed_size::<(u8, u8)>(), None);
    assert_eq!(fixed_size::<Option<Plain<Point>>>(), None);
    assert_eq!(fixed_size::<Tree>(), None);
    assert_eq!(fixed_size::<[[u8; 2]; 2]>(), None);

    assert!(is_raw::<u64>() && is_raw::<[char; 5]>() && is_raw::<String>() && is_raw::<Vec<f64>>());
    assert!(is_raw::<Plain<Point>>());
    assert!(!is_raw::<()>() && !is_raw::<Vec<String>>() && !is_raw::<Everything>());

    assert_eq!(size_hint::<u64>(), 8);
    assert_eq!(size_hint::<Plain<Point>>(), 16);
    assert_eq!(size_hint::<String>(), 256);
    let numbers = (
        u64::MAX,
        u32::MAX,
        [Some(u16::MAX); 8],
        u128::MAX,
        char::MAX,
    );
    assert!(to_bytes(&numbers).len() <= size_hint::<(u64, u32, [Option<u16>; 8], u128, char)>());
    let flags = [Some(true); 32];
    assert!(to_bytes(&flags).len() <= size_hint::<[Option<bool>; 32]>());
}

#[test]
fn names_do_not_tell_the_program() {
    mod inner {
        #[derive(Clone, Copy, bytemuck::NoUninit, bytemuck::CheckedBitPattern)]
        #[repr(C)]
        pub(super) struct Point([u32; 2]);
    }

    assert_eq!(shape_name::<u64>(), "u64 of 8 bytes");
    assert_eq!(shape_name::<i64>(), "i64 of 8 bytes");
    assert_eq!(shape_name::<[u8; 8]>(), "[u8; 8] of 8 bytes");
    assert_eq!(shape_name::<String>(), "String");
    assert_eq!(shape_name::<Plain<Point>>(), "Plain<Point> of 16 bytes");
    assert_eq!(
        shape_name::<Plain<inner::Point>>(),
        "Plain<Point> of 8 bytes"
    );
    assert_eq!(
        shape_name::<BTreeMap<String, Vec<Option<Tree>>>>(),
        "BTreeMap<String, Vec<Option<Tree>>>"
    );
    assert_eq!(
        shape_name::<(Tree, Box<[Tree]>, ())>(),
        "(Tree, Box<[Tree]>, ())"
    );
}

#[test]
fn plain_is_a_byte_string_elsewhere() {
    let value = (
        1_u8,
        Plain(Point {
            x: 1.0,
            y: 2.0,
            level: 3,
        }),
    );
    let bytes = postcard::to_allocvec(&value).unwrap();
    assert_eq!(bytes.len(), 2 + 16);
    assert_eq!(postcard::from_bytes(&bytes), Ok(value));
    assert!(postcard::from_bytes::<Plain<u64>>(&[2, 0, 0]).is_err());

    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, SeqDeserializer};
    let numbers =
        |count: u8| SeqDeserializer::<_, Error>::new((0..count).map(u8::into_deserializer));
    let visit = |count| Plain::<[u8; 3]>::deserialize(numbers(count));
    assert_eq!(visit(3), Ok(Plain([0, 1, 2])));
    assert!(visit(2).is_err() && visit(4).is_err());
}

/// [`Command`], for postcard: numbers are arrays of bytes, which it leaves as they are.
#[derive(Serialize, Deserialize)]
enum CommandMirror {
    Quit,
    Rename(String),
    Resize {
        width: [u8; 4],
        height: Option<[u8; 2]>,
    },
    Mix(u8, [u8; 4], Box<CommandMirror>),
    Paint([u8; 16]),
}

impl From<Command> for CommandMirror {
    fn from(command: Command) -> Self {
        match command {
            Command::Quit => CommandMirror::Quit,
            Command::Rename(name) => CommandMirror::Rename(name),
            Command::Resize { width, height } => CommandMirror::Resize {
                width: width.to_ne_bytes(),
                height: height.map(i16::to_ne_bytes),
            },
            Command::Mix(a, b, c) => CommandMirror::Mix(
                a,
                u32::from(b).to_ne_bytes(),
                Box::new(CommandMirror::from(*c)),
            ),
            Command::Paint(paint) => CommandMirror::Paint(bytemuck::cast(paint.0)),
        }
    }
}

/// [`Everything`], likewise.
#[derive(Serialize)]
struct EverythingMirror {
    small: (i8, u8, bool, [u8; 4]),
    signed: ([u8; 2], [u8; 4], [u8; 8], [u8; 16]),
    unsigned: ([u8; 2], [u8; 4], [u8; 8], [u8; 16]),
    real: ([u8; 4], [u8; 8]),
    text: String,
    bytes: Vec<u8>,
    option: Option<Option<[u8; 4]>>,
    result: Vec<Result<u8, String>>,
    map: BTreeMap<String, Vec<[u8; 8]>>,
    unit: (),
    array: [[u8; 2]; 3],
}

impl From<Everything> for EverythingMirror {
    fn from(all: Everything) -> Self {
        let (a, b, c, letter) = all.small;
        let (i16, i32, i64, i128) = all.signed;
        let (u16, u32, u64, u128) = all.unsigned;
        EverythingMirror {
            small: (a, b, c, u32::from(letter).to_ne_bytes()),
            signed: (
                i16.to_ne_bytes(),
                i32.to_ne_bytes(),
                i64.to_ne_bytes(),
                i128.to_ne_bytes(),
            ),
            unsigned: (
                u16.to_ne_bytes(),
                u32.to_ne_bytes(),
                u64.to_ne_bytes(),
                u128.to_ne_bytes(),
            ),
            real: (all.real.0.to_ne_bytes(), all.real.1.to_ne_bytes()),
            text: all.text,
            bytes: all.bytes,
            option: all.option.map(|inner| inner.map(u32::to_ne_bytes)),
            result: all.result,
            map: all
                .map
                .into_iter()
                .map(|(key, numbers)| (key, numbers.into_iter().map(i64::to_ne_bytes).collect()))
                .collect(),
            unit: (),
            array: all.array.map(u16::to_ne_bytes),
        }
    }
}

fn command() -> impl Strategy<Value = Command> {
    let leaf = prop_oneof![
        Just(Command::Quit),
        any::<String>().prop_map(Command::Rename),
        (any::<u32>(), any::<Option<i16>>())
            .prop_map(|(width, height)| Command::Resize { width, height }),
    ];
    leaf.prop_recursive(8, 8, 1, |inner| {
        (any::<u8>(), any::<char>(), inner).prop_map(|(a, b, c)| Command::Mix(a, b, Box::new(c)))
    })
}

fn everything() -> impl Strategy<Value = Everything> {
    let numbers = any::<(
        (i8, u8, bool, char),
        (i16, i32, i64, i128),
        (u16, u32, u64, u128),
    )>();
    let texts = any::<(
        String,
        Vec<u8>,
        Option<Option<u32>>,
        Vec<Result<u8, String>>,
    )>();
    let rest = any::<(BTreeMap<String, Vec<i64>>, [u16; 3])>();
    let real = (-1e9_f32..1e9, -1e9_f64..1e9);
    (numbers, real, texts, rest).prop_map(|(numbers, real, texts, rest)| Everything {
        small: numbers.0,
        signed: numbers.1,
        unsigned: numbers.2,
        real,
        text: texts.0,
        bytes: texts.1,
        option: texts.2,
        result: texts.3,
        map: rest.0,
        unit: (),
        array: rest.1,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The format is postcard's, with numbers as their bytes, in both directions.
    #[test]
    fn serde_values_are_postcard(all in everything(), commands in vec(command(), 0..9)) {
        let bytes = to_bytes(&all);
        let mirror = EverythingMirror::from(all.clone());
        prop_assert_eq!(&bytes, &postcard::to_allocvec(&mirror).unwrap());
        prop_assert_eq!(decode::<Everything>(&bytes), Ok(all));
        let bytes = to_bytes(&commands);
        let mirror: Vec<_> = commands.iter().cloned().map(CommandMirror::from).collect();
        prop_assert_eq!(&bytes, &postcard::to_allocvec(&mirror).unwrap());
        prop_assert_eq!(decode::<Vec<Command>>(&bytes), Ok(commands));
    }
}

proptest! {
    #[test]
    fn raw_values_round(
        numbers in any::<Vec<u64>>(),
        letters in any::<Vec<char>>(),
        text in any::<String>(),
        array in any::<[i16; 17]>(),
    ) {
        round(numbers);
        round(letters);
        round(text);
        round(array);
    }

    /// Any bytes give a value or an error, and the same as postcard where both give a value.
    #[test]
    fn any_bytes_are_harmless(bytes in vec(prop_oneof![any::<u8>(), 0_u8..4], 0..200)) {
        fn same<T, Mirror>(bytes: &[u8], value: impl Fn(Mirror) -> Option<T>)
        where
            T: Message + PartialEq + Debug,
            Mirror: Message,
        {
            let ours = decode::<T>(bytes);
            match postcard::take_from_bytes::<Mirror>(bytes) {
                Ok((theirs, [])) => assert!(ours.is_err() || ours.ok() == value(theirs)),
                _ => assert!(ours.is_err()),
            }
        }
        fn any<T: Message>(bytes: &[u8]) {
            let _ = decode::<T>(bytes);
            let _ = decode_vec::<T>(bytes, bytes.len());
        }
        fn command(mirror: CommandMirror) -> Option<Command> {
            Some(match mirror {
                CommandMirror::Quit => Command::Quit,
                CommandMirror::Rename(name) => Command::Rename(name),
                CommandMirror::Resize { width, height } => Command::Resize {
                    width: u32::from_ne_bytes(width),
                    height: height.map(i16::from_ne_bytes),
                },
                CommandMirror::Mix(a, b, c) => Command::Mix(
                    a,
                    char::from_u32(u32::from_ne_bytes(b))?,
                    Box::new(command(*c)?),
                ),
                CommandMirror::Paint(bytes) => Command::Paint(Plain(bytemuck::cast(bytes))),
            })
        }
        same(&bytes, command);
        same(&bytes, |all: Vec<_>| all.into_iter().map(command).collect::<Option<Vec<_>>>());
        same(&bytes, |map: BTreeMap<u8, (Vec<u8>, Option<[u8; 8]>)>| {
            let entries = map.into_iter();
            let read = |(key, (bytes, number)): (_, (_, Option<_>))| {
                (key, (bytes, number.map(i64::from_ne_bytes)))
            };
            Some(entries.map(read).collect::<BTreeMap<_, _>>())
        });
        same(&bytes, |all: Vec<([u8; 2], Vec<[u8; 4]>, Vec<bool>)>| {
            let read = |(a, b, c): (_, Vec<_>, _)| {
                let numbers: Vec<_> = b.into_iter().map(i32::from_ne_bytes).collect();
                (u16::from_ne_bytes(a), numbers, c)
            };
            Some(all.into_iter().map(read).collect::<Vec<_>>())
        });
        same(&bytes, |text: Vec<String>| Some(text));
        any::<Everything>(&bytes);
        any::<Chain>(&bytes);
        any::<Tree>(&bytes);
        any::<Vec<Plain<[f64; 4]>>>(&bytes);
        any::<Vec<char>>(&bytes);
        any::<[bool; 7]>(&bytes);
        any::<String>(&bytes);
        any::<Plain<Colour>>(&bytes);
    }
}
