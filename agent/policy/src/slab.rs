//! Things under small numbers that are given again.

/// A number in a [`Slab`].
pub(crate) type Number = u32;

/// Things under the least numbers that are free.
#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<Number>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// Keeps a thing; its number.
    pub fn insert(&mut self, item: T) -> Number {
        match self.free.pop() {
            Some(number) => {
                self.items[number as usize] = Some(item);
                number
            }
            None => {
                self.items.push(Some(item));
                self.items.len() as Number - 1
            }
        }
    }

    /// Forgets a thing: its number is free.
    pub fn remove(&mut self, number: Number) -> Option<T> {
        let item = self.items.get_mut(number as usize)?.take()?;
        self.free.push(number);
        Some(item)
    }

    pub fn get(&self, number: Number) -> Option<&T> {
        self.items.get(number as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, number: Number) -> Option<&mut T> {
        self.items.get_mut(number as usize)?.as_mut()
    }

    /// By ascending number.
    pub fn iter(&self) -> impl Iterator<Item = (Number, &T)> {
        let numbered = (0..).zip(&self.items);
        numbered.filter_map(|(number, item)| Some((number, item.as_ref()?)))
    }

    pub fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_again_when_its_thing_is_gone() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!((a, b, slab.len()), (0, 1, 2));
        assert_eq!(
            (slab.remove(a), slab.remove(a), slab.len()),
            (Some('a'), None, 1)
        );
        assert_eq!(
            (slab.get(a), slab.get(9), slab.get(b)),
            (None, None, Some(&'b'))
        );
        assert_eq!(slab.insert('c'), 0);
        *slab.get_mut(b).unwrap() = 'd';
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(0, &'c'), (1, &'d')]);
    }
}
