package nearest

import "testing"

func TestWord(t *testing.T) {
	known := []string{"fashion-mnist", "mnist", "shoppers"}
	for word, want := range map[string]string{
		"minst": "mnist", "MNIST": "mnist", "fashion": "fashion-mnist", "SHOP": "shoppers", "fa": "", "fashion-minst": "fashion-mnist", "shopers": "shoppers", "imagenet": "", "": "",
	} {
		if got := Word(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

// Of several that begin so the nearest is meant, or none.
func TestWordBegun(t *testing.T) {
	known := []string{"dirichlet", "iid", "quantity-dirichlet", "quantity-lognormal"}
	for word, want := range map[string]string{"diric": "dirichlet", "quantity": "", "quantity-log": "quantity-lognormal", "ii": "iid"} {
		if got := Word(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

func TestOneOf(t *testing.T) {
	if got, want := OneOf("shoper", []string{"mnist", "shoppers"}), "did you mean shoppers? want one of mnist, shoppers"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := OneOf("imagenet", []string{"mnist", "shoppers"}), "want one of mnist, shoppers"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// From "kitten" to "sitting": two letters become others and one is added.
func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"kitten", "sitting", 3}, {"", "abc", 3}, {"abc", "", 3}, {"same", "same", 0}, {"ab", "ba", 2}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
