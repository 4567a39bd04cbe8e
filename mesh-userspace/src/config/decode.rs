//! A checked tree → typed values, by way of serde.

use super::tree::{Entry, Kind, Node, Scalar};
use serde::{
    Deserialize,
    de::{
        DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::{Error, StrDeserializer},
    },
    forward_to_deserialize_any,
};

/// `node` as a value, with what it does not say taken from `under`, mapping by mapping.
pub(super) fn decode<'de, T: Deserialize<'de>>(node: &'de Node<'_>, under: Option<&'de Node<'_>>) -> Result<T, Error> {
    T::deserialize(Layered { over: node, under })
}

#[derive(Clone, Copy)]
struct Layered<'de, 't> {
    over: &'de Node<'t>,
    under: Option<&'de Node<'t>>,
}

impl<'de> Deserializer<'de> for Layered<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match (&self.over.kind, self.over.scalar()) {
            (_, Some(Scalar::Null)) => visitor.visit_unit(),
            (_, Some(Scalar::Bool(value))) => visitor.visit_bool(value),
            (_, Some(Scalar::Float(value))) => visitor.visit_f64(value),
            (_, Some(Scalar::Text(text))) => visitor.visit_borrowed_str(text),
            (_, Some(Scalar::Integer(value))) => match (u64::try_from(value), i64::try_from(value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => visitor.visit_i128(value),
            },
            (Kind::List(_), _) => visitor.visit_seq(Items(self.over.items())),
            (Kind::Map(over), _) => {
                let under = match self.under {
                    Some(Node { kind: Kind::Map(under), .. }) => under.as_slice(),
                    _ => &[],
                };
                visitor.visit_map(Entries { over, under, all: over, value: None })
            }
            (Kind::Bad | Kind::Scalar { .. }, _) => visitor.visit_unit(),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.over.scalar() {
            Some(Scalar::Text(text)) => visitor.visit_enum(text.into_deserializer()),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Items<I>(I);

impl<'de, 't: 'de, I: Iterator<Item = (usize, &'de Node<'t>)>> SeqAccess<'de> for Items<I> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|(_, node)| seed.deserialize(Layered { over: node, under: None })).transpose()
    }

    /// Lists are as long as they are written, and then as large in memory as they must be.
    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint().1
    }
}

struct Entries<'de, 't> {
    /// What is still to come of the mapping.
    over: &'de [Entry<'t>],
    /// Then, what is still to come of the one under it.
    under: &'de [Entry<'t>],
    /// The whole mapping.
    all: &'de [Entry<'t>],
    /// The value of the key that came last.
    value: Option<Layered<'de, 't>>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let (key, value) = if let Some((entry, rest)) = self.over.split_first() {
            self.over = rest;
            let under = self.under.iter().find(|e| e.key == entry.key).map(|e| &e.value);
            (&entry.key, Layered { over: &entry.value, under })
        } else {
            loop {
                let Some((entry, rest)) = self.under.split_first() else { return Ok(None) };
                self.under = rest;
                if !self.all.iter().any(|e| e.key == entry.key) {
                    break (&entry.key, Layered { over: &entry.value, under: None });
                }
            }
        };
        self.value = Some(value);
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let value = self.value.take().ok_or_else(|| serde::de::Error::custom("a value before its key"))?;
        seed.deserialize(value)
    }
}
