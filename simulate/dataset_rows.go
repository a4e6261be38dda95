package simulate

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"choir.example/model/data"
)

// shoppers are the built-in sessions of a web shop; their region says who had them.
func shoppers(_ *Loader, _ DataSettings, seed uint64) (*Dataset, error) {
	schema, all, regions, err := data.Shoppers()
	if err != nil {
		return nil, err
	}
	of := make([]int32, len(regions))
	for i, r := range regions {
		of[i] = int32(r)
	}
	return tabular(schema, all, "region", of, seed)
}

// rows are a user's own: a file of CSV or JSON lines, and the schema that says what its columns mean.
func rows(l *Loader, s DataSettings, seed uint64) (*Dataset, error) {
	if s.Path == "" || s.Schema == "" {
		return nil, errors.New("want path, the file of rows, and schema, the file that says what its columns mean")
	}
	schema, err := l.schema(s.Schema)
	if err != nil {
		return nil, err
	}
	format := data.FormatCSV
	if strings.HasSuffix(strings.TrimSuffix(s.Path, ".gz"), ".jsonl") {
		format = data.FormatJSONL
	}
	var all []data.Row
	var lines []int
	err = opened(s.Path, func(f *os.File) error {
		_, err := format.Read(f, s.Path, schema, data.CSV{}, func(line int, row data.Row) error {
			all, lines = append(all, row), append(lines, line)
			return nil
		})
		return err
	})
	if err != nil || s.By == "" {
		return tabularIf(err, schema, all, "", nil, seed)
	}
	owners, err := ownersOf(format, s, schema, lines)
	return tabularIf(err, schema, all, s.By, owners, seed)
}

func opened(path string, read func(f *os.File) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("path: %w", err)
	}
	defer f.Close()
	return read(f)
}

// ownersOf reads the column that says whose the rows on these lines are: groups in order of first appearance.
func ownersOf(format data.Format, s DataSettings, schema *data.Schema, lines []int) ([]int32, error) {
	numbers, byLine := map[string]int32{}, map[int]int32{}
	err := opened(s.Path, func(f *os.File) error {
		return format.Column(f, s.Path, schema, s.By, func(line int, text string) error {
			if text == "" {
				return fmt.Errorf("column %s, which says whose the row is, is empty", s.By)
			}
			if _, known := numbers[text]; !known {
				numbers[text] = int32(len(numbers))
			}
			byLine[line] = numbers[text]
			return nil
		})
	})
	owners := make([]int32, len(lines))
	for i, line := range lines {
		owners[i] = byLine[line]
	}
	return owners, err
}

// shop is a made-up web shop; a user has the sessions.
func shop(_ *Loader, s DataSettings, seed uint64) (*Dataset, error) {
	users, sessions := s.Users, s.Examples
	if users == 0 {
		users = 200
	}
	if sessions == 0 {
		sessions = 20_000
	}
	if sessions < 10 || sessions > maxExamples || users < 1 || users > sessions {
		return nil, fmt.Errorf("%d sessions of %d users, want 10 to %d sessions and 1 to as many users", sessions, users, maxExamples)
	}
	made, err := data.GenerateShop(seed, users, max(users/4, 10), sessions)
	if err != nil {
		return nil, err
	}
	schema, all, owners, err := made.Rows()
	return tabularIf(err, schema, all, "user", owners, seed)
}

// maxExamples bounds what is made up.
const maxExamples = 5_000_000

func tabularIf(err error, schema *data.Schema, all []data.Row, natural string, owners []int32, seed uint64) (*Dataset, error) {
	if err != nil {
		return nil, err
	}
	return tabular(schema, all, natural, owners, seed)
}

// tabular divides rows as nodes do, and learns from the training part. Columns to divide by are those of the schema whose
// values are few, and the natural one, if there is any, in which owners are the groups of all rows.
func tabular(schema *data.Schema, all []data.Row, natural string, owners []int32, seed uint64) (*Dataset, error) {
	train, _, test, _, err := data.Tabular(schema, all, seed)
	if err != nil {
		return nil, err
	}
	part := data.Split(schema, all, seed).Train // the same again: it goes by the seed alone
	d := &Dataset{Train: train, Test: test, Columns: schema.Groups(part), Natural: natural, Tables: schema.Tables()}
	if natural != "" {
		if d.Columns[natural], err = follow(all, owners, part); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// follow tells whose the rows of a part are, which Split took out of all rows without copying them.
func follow(all []data.Row, owners []int32, part []data.Row) ([]int32, error) {
	of := make(map[*float64]int32, len(all))
	for i := range all {
		of[&all[i][0]] = owners[i]
	}
	groups := make([]int32, len(part))
	for k := range part {
		owner, known := of[&part[k][0]]
		if !known {
			return nil, errors.New("a row of a part is none of those that were divided")
		}
		groups[k] = owner
	}
	return groups, nil
}

// synthetic is the data set of FedProx: a file that holds it, or one made up by the same recipe.
func synthetic(_ *Loader, s DataSettings, seed uint64) (*Dataset, error) {
	var train, test data.Set
	var devices []int32
	var err error
	switch {
	case s.IID && (s.Alpha != 0 || s.Beta != 0):
		return nil, errors.New("both iid and alpha or beta, by which devices differ; want one of them")
	case s.Path != "":
		train, test, devices, _, err = data.LEAF(s.Path)
	default:
		train, test, devices, err = data.FedProxSynthetic(s.Alpha, s.Beta, s.IID, seed)
	}
	return &Dataset{Train: train, Test: test, Columns: map[string][]int32{"device": devices}, Natural: "device"}, err
}

// blobs are clouds of points, a fifth of them to test with.
func blobs(_ *Loader, s DataSettings, seed uint64) (*Dataset, error) {
	for _, n := range []*struct {
		key   string
		value *int
		usual int
		most  int
	}{{"examples", &s.Examples, 2000, maxExamples}, {"features", &s.Features, 20, 4096}, {"classes", &s.Classes, 10, 1000}} {
		if *n.value == 0 {
			*n.value = n.usual
		}
		if *n.value < 2 || *n.value > n.most {
			return nil, fmt.Errorf("%s is %d, want 2 to %d", n.key, *n.value, n.most)
		}
	}
	set, err := data.Blobs(s.Examples, s.Features, s.Classes, blobsApart, seed)
	if err != nil {
		return nil, err
	}
	train, test := set.Divide(.2, seed)
	return &Dataset{Train: train, Test: test}, nil
}

// blobsApart is how far apart blobs lie: so that most points can be told, and not all.
const blobsApart = .6
