package data

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
)

// Histories are what users did, in the order of time, for recommenders that learn from implicit feedback: each item
// once, where it was first. The last item of a user is to test with, the one before to validate with, all others to learn
// from. Ids of users and items begin with 1; 0 is none.
type Histories struct {
	MaxUser, MaxItem int       // the largest ids
	User             []int32   // id of each user, ascending; the other slices are in its order
	Train            [][]int32 // items to learn from, the oldest first
	Validation, Test []int32   // the item before the last, and the last
	Country          []int32   // where each user bought first; nil where nobody says
}

// OnlineRetail reads the purchase lines of a web shop (Chen, Sain and Guo 2012) from purchases.csv of a directory, with
// or without .gz: columns customer, minute and item of whole numbers from 0, to which 1 is added, and if it is there
// country, likewise, to which nothing is; others are ignored. Lines of the same minute are in the order of the file. Users with fewer items than least, which is at least 3, are left out.
func OnlineRetail(dir string, least int) (*Histories, error) {
	if least < 3 {
		return nil, fmt.Errorf("histories of at least %d items, want at least 3: one to learn from, to validate and to test with", least)
	}
	var h *Histories
	err := readEither(dir, "purchases.csv", func(_ string, r io.Reader) error {
		all, countries, err := readPurchases(r)
		if err == nil {
			h, err = histories(all, least)
		}
		if err == nil && !countries {
			h.Country = nil
		}
		return err
	})
	return h, err
}

type purchase struct {
	user, item, country int32
	minute              float64
}

// readPurchases reads all lines, and says whether they have a country.
func readPurchases(r io.Reader) (all []purchase, countries bool, err error) {
	cr := csv.NewReader(r)
	cr.ReuseRecord = true
	header, err := cr.Read()
	if err != nil {
		return nil, false, fmt.Errorf("header: %w", err)
	}
	columns := []string{"customer", "item", "minute", "country"}
	if countries = slices.Contains(header, "country"); !countries {
		columns = columns[:3]
	}
	at := make([]int, len(columns))
	for i, name := range columns {
		if at[i] = slices.Index(header, name); at[i] < 0 {
			return nil, false, fmt.Errorf("line 1: columns %q, want %q among them", header, columns)
		}
	}
	for {
		fields, err := cr.Read()
		if errors.Is(err, io.EOF) {
			return all, countries, nil
		}
		if err != nil {
			return nil, false, err
		}
		var v [4]float64
		for i, name := range columns {
			if err := parseNumber(fields[at[i]], &v[i]); err != nil || !isID(v[i], 0) || v[i] == maxID {
				line, _ := cr.FieldPos(at[i])
				return nil, false, fmt.Errorf("line %d: column %s: %s is not a whole number from 0 to %d", line, name, quoted(fields[at[i]]), maxID-1)
			}
		}
		all = append(all, purchase{int32(v[0]) + 1, int32(v[1]) + 1, int32(v[3]), v[2]})
	}
}

func histories(all []purchase, least int) (*Histories, error) {
	slices.SortStableFunc(all, func(a, b purchase) int {
		return cmp.Or(cmp.Compare(a.user, b.user), cmp.Compare(a.minute, b.minute))
	})
	h := &Histories{}
	for len(all) > 0 {
		n := slices.IndexFunc(all, func(p purchase) bool { return p.user != all[0].user })
		if n < 0 {
			n = len(all)
		}
		h.add(all[:n], least)
		all = all[n:]
	}
	if len(h.User) == 0 {
		return nil, fmt.Errorf("no user has %d items", least)
	}
	return h, nil
}

// add takes the purchases of one user.
func (h *Histories) add(of []purchase, least int) {
	var items []int32
	seen := map[int32]bool{}
	for _, p := range of {
		h.MaxItem = max(h.MaxItem, int(p.item))
		if !seen[p.item] {
			seen[p.item] = true
			items = append(items, p.item)
		}
	}
	n := len(items)
	if n < least {
		return
	}
	h.MaxUser = max(h.MaxUser, int(of[0].user))
	h.User, h.Country = append(h.User, of[0].user), append(h.Country, of[0].country)
	h.Train = append(h.Train, items[:n-2:n-2])
	h.Validation, h.Test = append(h.Validation, items[n-2]), append(h.Test, items[n-1])
}

// Windows is an example for each item to learn from but a user's first: the newest length items before it, 0 in front of
// fewer, and the item as target. Classes are 0 to MaxItem.
func (h *Histories) Windows(length int) Set {
	s := Set{Input: []int{length}, Targets: 1, Classes: h.MaxItem + 1}
	for _, items := range h.Train {
		for i := 1; i < len(items); i++ {
			s.X = appendNewest(s.X, items[:i], length)
			s.Y = append(s.Y, float32(items[i]))
		}
	}
	return s
}

// Queries are the windows with which the next item of each user is asked for, and that item: for validation after the
// items to learn from, for the test after the item of the validation, too. seen are all items before it, which a
// recommender does not offer again.
func (h *Histories) Queries(length int, test bool) (s Set, seen [][]int32) {
	s = Set{Input: []int{length}, Targets: 1, Classes: h.MaxItem + 1}
	for u, items := range h.Train {
		next := h.Validation[u]
		if test {
			items, next = append(slices.Clip(items), next), h.Test[u]
		}
		s.X = appendNewest(s.X, items, length)
		s.Y = append(s.Y, float32(next))
		seen = append(seen, items)
	}
	return s, seen
}

func appendNewest(x []float32, items []int32, length int) []float32 {
	items = items[max(0, len(items)-length):]
	x = append(x, make([]float32, length-len(items))...)
	for _, id := range items {
		x = append(x, float32(id))
	}
	return x
}

// Pairs is user and item for each item to learn from, with target 1, and after each so many items with target 0 that are
// not among what the user learns from, drawn evenly by the seed. A user who has all items gets none.
func (h *Histories) Pairs(negatives int, seed uint64) Set {
	s := Set{Input: []int{2}, Targets: 1, Classes: 1}
	rng := rand.New(rand.NewPCG(seed, 0x7061697273))
	for u, items := range h.Train {
		seen := map[int32]bool{}
		for _, item := range items {
			seen[item] = true
		}
		user := float32(h.User[u])
		for _, item := range items {
			s.X, s.Y = append(s.X, user, float32(item)), append(s.Y, 1)
			for n := 0; n < negatives && len(seen) < h.MaxItem; {
				other := int32(1 + rng.IntN(h.MaxItem))
				if !seen[other] {
					s.X, s.Y = append(s.X, user, float32(other)), append(s.Y, 0)
					n++
				}
			}
		}
	}
	return s
}
