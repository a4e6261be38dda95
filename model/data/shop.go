package data

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Shop is a made-up web shop: users, items, sessions in which a user looks at an item, and the purchases that some
// sessions end in. It is for trying things out: nobody's data, as large as wanted, and learnable by construction.
//
// A user has a favourite of six categories, a usual spend of exp(N(3.6, 0.5)) and 0 to 20 earlier visits, ⌊21·u²⌋ for a
// uniform u. An item has a category, a price of exp(N(3.4, 0.7)) in [1, 500] and a rating of N(3.8, 0.7) in [1, 5]. A
// session has an hour, a device (desktop .4, mobile .5, tablet .1), a source (direct .3, search .4, advert .2, mail .1),
// a discount of 30 % with probability .25, pages 1 + ⌊Exp(1)·4⌋ up to 200 and seconds pages·exp(N(3.2, 0.6)); its item is
// of the user's favourite category with probability one half, else any. It ends in a purchase with probability
// 1/(1+exp(−z)):
//
//	z = −4 + 2.4·favourite − 2·max(0, ln(paid/usual spend)) + 1.2·(rating − 3.8) + 1.1·ln(pages)
//	    + 2.5·[mail and visits ≥ 5] + 2·[hour ≥ 18]·(+1 on a desktop, −1 on a mobile, 0 on a tablet)
//
// where paid is the price after the discount. The last two terms are interactions: no linear model has them.
type Shop struct {
	seed     uint64
	users    []shopUser
	items    []shopItem
	shelves  [][]int // items by category
	sessions int
}

type shopUser struct {
	favourite, visits int
	spend             float64
}

type shopItem struct {
	category      int
	price, rating float64
}

//go:embed shop.yaml
var shopYAML []byte

//go:embed shop.json
var shopJSON []byte

var (
	shopCategories = []string{"books", "clothes", "garden", "kitchen", "music", "sports"}
	shopDevices    = []string{"desktop", "mobile", "tablet"}
	shopSources    = []string{"direct", "search", "advert", "mail"}
)

// maxShop bounds each number that GenerateShop takes.
const maxShop = 100_000_000

// GenerateShop makes a shop up. The same numbers give the same shop; another seed gives another one that follows the
// same rules, so that shops of several seeds can stand for several nodes.
func GenerateShop(seed uint64, users, items, sessions int) (*Shop, error) {
	for _, n := range []int{users, items, sessions} {
		if n < 1 || n > maxShop {
			return nil, fmt.Errorf("generate shop: %d users, %d items, %d sessions, want 1 to %d each", users, items, sessions, maxShop)
		}
	}
	rng := rand.New(rand.NewPCG(seed, 0x73686f70))
	s := &Shop{seed: seed, sessions: sessions, shelves: make([][]int, len(shopCategories))}
	for range users {
		u := rng.Float64()
		s.users = append(s.users, shopUser{
			favourite: rng.IntN(len(shopCategories)), visits: int(21 * u * u),
			spend: cents(min(math.Exp(3.6+0.5*rng.NormFloat64()), 1000)),
		})
	}
	for i := range items {
		it := shopItem{
			category: rng.IntN(len(shopCategories)), price: cents(min(max(math.Exp(3.4+0.7*rng.NormFloat64()), 1), 500)),
			rating: cents(min(max(3.8+0.7*rng.NormFloat64(), 1), 5)),
		}
		s.items = append(s.items, it)
		s.shelves[it.category] = append(s.shelves[it.category], i)
	}
	return s, nil
}

// cents rounds to two places, which is how the files hold it.
func cents(x float64) float64 { return math.Round(x*100) / 100 }

// ShopSchema is the schema of a shop's sessions.
func ShopSchema() (*Schema, error) { return ParseSchema(shopJSON) }

// session is one visit.
type session struct {
	user, item, hour, device, source, pages int
	seconds, paid                           float64
	discount, favourite                     bool
}

// draw makes a session up.
func (s *Shop) draw(rng *rand.Rand) session {
	v := session{user: rng.IntN(len(s.users)), item: rng.IntN(len(s.items)), hour: rng.IntN(24)}
	v.device, v.source = pick(rng, .4, .5), pick(rng, .3, .4, .2)
	u := &s.users[v.user]
	if shelf := s.shelves[u.favourite]; rng.IntN(2) == 0 && len(shelf) > 0 {
		v.item = shelf[rng.IntN(len(shelf))]
	}
	it := &s.items[v.item]
	v.favourite, v.discount, v.paid = it.category == u.favourite, rng.IntN(4) == 0, it.price
	if v.discount {
		v.paid = cents(it.price * 0.7)
	}
	v.pages = min(1+int(rng.ExpFloat64()*4), 200)
	v.seconds = math.Round(min(float64(v.pages)*math.Exp(3.2+0.6*rng.NormFloat64()), 100_000))
	return v
}

// pick draws an index by shares; what they leave is the last one's.
func pick(rng *rand.Rand, shares ...float64) int {
	x := rng.Float64()
	for i, share := range shares {
		if x -= share; x < 0 {
			return i
		}
	}
	return len(shares)
}

// chance is the probability of a purchase.
func (s *Shop) chance(v session) float64 {
	u, it := &s.users[v.user], &s.items[v.item]
	z := -4 - 2*max(0, math.Log(v.paid/u.spend)) + 1.2*(it.rating-3.8) + 1.1*math.Log(float64(v.pages))
	if v.favourite {
		z += 2.4
	}
	if shopSources[v.source] == "mail" && u.visits >= 5 {
		z += 2.5
	}
	if v.hour >= 18 {
		z += []float64{2, -2, 0}[v.device]
	}
	return 1 / (1 + math.Exp(-z))
}

// Sessions writes the sessions as CSV, in the columns of ShopSchema with those it ignores, and the purchases among them.
// Both are the same each time. progress, which may be nil, is told of the sessions written.
func (s *Shop) Sessions(sessions, purchases io.Writer, progress func(done, all int64)) error {
	out, bought := csv.NewWriter(sessions), csv.NewWriter(purchases)
	err := errors.Join(
		out.Write([]string{"session", "user", "item", "hour", "device", "source", "category", "favourite", "price", "discount",
			"rating", "usual_spend", "visits", "pages", "seconds", "purchase"}),
		bought.Write([]string{"session", "user", "item", "paid"}))
	rng := rand.New(rand.NewPCG(s.seed, 0x76697369747300))
	for i := 1; i <= s.sessions && err == nil; i++ {
		v := s.draw(rng)
		purchase := rng.Float64() < s.chance(v)
		u, it := &s.users[v.user], &s.items[v.item]
		names := []string{strconv.Itoa(i), "u" + strconv.Itoa(v.user+1), "i" + strconv.Itoa(v.item+1)}
		err = out.Write(append(names, strconv.Itoa(v.hour), shopDevices[v.device], shopSources[v.source], shopCategories[it.category],
			strconv.FormatBool(v.favourite), money(it.price), strconv.FormatBool(v.discount), money(it.rating), money(u.spend),
			strconv.Itoa(u.visits), strconv.Itoa(v.pages), strconv.Itoa(int(v.seconds)), strconv.FormatBool(purchase)))
		if purchase && err == nil {
			err = bought.Write(append(names[:3:3], money(v.paid)))
		}
		if progress != nil && (i%10_000 == 0 || i == s.sessions) {
			progress(int64(i), int64(s.sessions))
		}
	}
	out.Flush()
	bought.Flush()
	return errors.Join(err, out.Error(), bought.Error())
}

// Rows are the sessions as rows of ShopSchema, and the user, from 0, of each.
func (s *Shop) Rows() (schema *Schema, rows []Row, users []int32, err error) {
	if schema, err = ShopSchema(); err != nil {
		return nil, nil, nil, err
	}
	var text bytes.Buffer
	if err := s.Sessions(&text, io.Discard, nil); err != nil {
		return nil, nil, nil, err
	}
	err = ReadCSV(bytes.NewReader(text.Bytes()), "sessions.csv", schema, func(_ int, row Row) error {
		rows = append(rows, row)
		return nil
	})
	if err != nil {
		return nil, nil, nil, err
	}
	err = FormatCSV.Column(&text, "sessions.csv", schema, "user", func(_ int, user string) error {
		n, err := strconv.Atoi(strings.TrimPrefix(user, "u"))
		users = append(users, int32(n-1))
		return err
	})
	return schema, rows, users, err
}

func money(x float64) string { return strconv.FormatFloat(x, 'f', 2, 64) }

// people writes the users as CSV.
func (s *Shop) people(w io.Writer) error {
	out := csv.NewWriter(w)
	err := out.Write([]string{"user", "favourite", "usual_spend", "visits"})
	for i, u := range s.users {
		err = errors.Join(err, out.Write([]string{"u" + strconv.Itoa(i+1), shopCategories[u.favourite], money(u.spend), strconv.Itoa(u.visits)}))
	}
	out.Flush()
	return errors.Join(err, out.Error())
}

// goods writes the items as CSV.
func (s *Shop) goods(w io.Writer) error {
	out := csv.NewWriter(w)
	err := out.Write([]string{"item", "category", "price", "rating"})
	for i, it := range s.items {
		err = errors.Join(err, out.Write([]string{"i" + strconv.Itoa(i+1), shopCategories[it.category], money(it.price), money(it.rating)}))
	}
	out.Flush()
	return errors.Join(err, out.Error())
}

// Write makes the shop's files in a directory, which is made if it does not exist: sessions.csv, purchases.csv,
// users.csv, items.csv, and the schema of the sessions as shop.yaml and shop.json. A file that is there already is not
// written over. It returns their paths; after an error none of them is left.
func (s *Shop) Write(dir string, progress func(done, all int64)) (paths []string, err error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("write shop: %w", err)
	}
	var files []*os.File
	var to []*bufio.Writer
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			for _, path := range paths {
				err = errors.Join(err, os.Remove(path))
			}
			paths, err = nil, fmt.Errorf("write shop: %w", err)
		}
	}()
	for _, name := range []string{"sessions.csv", "purchases.csv", "users.csv", "items.csv", "shop.yaml", "shop.json"} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil {
			return paths, err
		}
		files, to, paths = append(files, f), append(to, bufio.NewWriterSize(f, 1<<16)), append(paths, f.Name())
	}
	if err := errors.Join(s.Sessions(to[0], to[1], progress), s.people(to[2]), s.goods(to[3])); err != nil {
		return paths, err
	}
	_, yamlErr := to[4].Write(shopYAML)
	_, jsonErr := to[5].Write(shopJSON)
	err = errors.Join(yamlErr, jsonErr)
	for _, w := range to {
		err = errors.Join(err, w.Flush())
	}
	return paths, err
}
