package simulate

import (
	"cmp"
	"fmt"

	"choir.example/model/data"
)

// images are those of an IDX data set: a directory with the four files that MNIST came in.
func images(_ *Loader, s DataSettings, _ uint64) (*Dataset, error) {
	train, test, err := data.FashionMNIST(s.Path)
	if err != nil {
		return nil, err
	}
	return &Dataset{Train: train, Test: test}, otherMNIST(s, train.Y)
}

// otherMNIST refuses the files of the one under the other's name. Both have the same names and shapes; Fashion-MNIST
// has 6,000 images of each class and MNIST has not.
func otherMNIST(s DataSettings, labels []float32) error {
	var of [10]int
	for _, y := range labels {
		of[int(y)]++
	}
	even := of == [10]int{6000, 6000, 6000, 6000, 6000, 6000, 6000, 6000, 6000, 6000}
	switch {
	case s.Name == "mnist" && even:
		return fmt.Errorf("the files in %s are those of Fashion-MNIST; want name fashion-mnist, or another path", s.Path)
	case s.Name == "fashion-mnist" && !even && len(labels) == 60_000:
		return fmt.Errorf("the files in %s are not those of Fashion-MNIST, which has 6000 images of each class; want name mnist, or another path", s.Path)
	}
	return nil
}

// textBuckets are so many that two of the n-grams of ten thousand short texts seldom share one.
const textBuckets = 1 << 16

// banking are questions of customers as bags of hashed n-grams.
func banking(_ *Loader, s DataSettings, _ uint64) (*Dataset, error) {
	train, test, _, err := data.BANKING77(s.Path, data.Tokeniser{Buckets: textBuckets, Words: 2, Characters: 4}, cmp.Or(s.Length, 192))
	return &Dataset{Train: train, Test: test, Tables: []int{textBuckets + 1}}, err
}

// shakespeare is what the roles of all plays say, as characters.
func shakespeare(_ *Loader, s DataSettings, _ uint64) (*Dataset, error) {
	train, test, roles, _, err := data.ShakespeareRoles(s.Path, cmp.Or(s.Length, 80))
	return &Dataset{Train: train, Test: test, Columns: map[string][]int32{"role": roles}, Natural: "role"}, err
}

// leastItems is how many products a customer has who is counted.
const leastItems = 5

// retail is what customers of a shop bought next, after the newest products before it.
func retail(_ *Loader, s DataSettings, _ uint64) (*Dataset, error) {
	if s.Form != "" && s.Form != "steps" && s.Form != "items" {
		return nil, fmt.Errorf("form %.40q, want steps or items", s.Form)
	}
	length := cmp.Or(s.Length, 20)
	if length < 1 || length > 4096 {
		return nil, fmt.Errorf("length is %d, want 1 to 4096", length)
	}
	h, err := data.OnlineRetail(s.Path, leastItems)
	if err != nil {
		return nil, err
	}
	var customers, countries []int32 // of each example
	for u, items := range h.Train {
		for range len(items) - 1 {
			customers = append(customers, h.User[u])
			if h.Country != nil {
				countries = append(countries, h.Country[u])
			}
		}
	}
	d := &Dataset{Train: h.Windows(length), Columns: map[string][]int32{"customer": customers}, Natural: "customer", Tables: []int{h.MaxItem + 1}}
	d.Test, _ = h.Queries(length, true)
	if h.Country != nil {
		d.Columns["country"] = countries
	}
	if s.Form != "items" {
		d.Tables = []int{h.MaxUser + 1, h.MaxItem + 1}
		withUsers(&d.Train, customers)
		withUsers(&d.Test, h.User)
	}
	return d, nil
}

// withUsers makes steps of user and item of items. A step without an item has no user.
func withUsers(s *data.Set, users []int32) {
	width := s.Values()
	x := make([]float32, 0, 2*len(s.X))
	for i, item := range s.X {
		user := float32(users[i/width])
		if item == 0 {
			user = 0
		}
		x = append(x, user, item)
	}
	s.X, s.Input = x, []int{width, 2}
}
