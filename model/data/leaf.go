package data

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxLEAF bounds a LEAF file, unpacked: 1 GiB.
const maxLEAF = 1 << 30

// leafFile is both parts of a data set.
type leafFile struct {
	Train, Test *leafPart
}

// leafPart is one part in LEAF's layout.
type leafPart struct {
	Users       []string            `json:"users"`
	Hierarchies []string            `json:"hierarchies"`
	Samples     []int               `json:"num_samples"`
	Data        map[string]leafUser `json:"user_data"`
}

type leafUser struct {
	X [][]float32 `json:"x"`
	Y []float32   `json:"y"`
}

// LEAF reads a data set that is divided among users, in the JSON layout of LEAF (Caldas et al. 2018): one object with train
// and test, each with users, num_samples and user_data of x, lists of numbers of one length, and y, classes from 0. The
// file may be gzip. Examples are in order of train's users; owners are the user of each example to learn from, by place.
func LEAF(path string) (train, test Set, owners []int32, users []string, err error) {
	f, err := readLEAF(path)
	if err != nil {
		return Set{}, Set{}, nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if train, owners, err = f.Train.set(); err != nil {
		return Set{}, Set{}, nil, nil, fmt.Errorf("%s: train: %w", path, err)
	}
	if test, _, err = f.Test.set(); err != nil {
		return Set{}, Set{}, nil, nil, fmt.Errorf("%s: test: %w", path, err)
	}
	if train.Input[0] != test.Input[0] {
		return Set{}, Set{}, nil, nil, fmt.Errorf("%s: examples of train have %d values, those of test %d", path, train.Input[0], test.Input[0])
	}
	classes := max(train.Classes, test.Classes, 2)
	train.Classes, test.Classes = classes, classes
	return train, test, owners, f.Train.Users, nil
}

func readLEAF(path string) (*leafFile, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	plain, err := Decompress(file)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(plain, maxLEAF+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxLEAF {
		return nil, fmt.Errorf("the file holds more than %d bytes", maxLEAF)
	}
	d, f := json.NewDecoder(bytes.NewReader(text)), &leafFile{}
	d.DisallowUnknownFields()
	if err := d.Decode(f); err != nil {
		return nil, fmt.Errorf("at byte %d: %w; want an object of train and test in LEAF's layout", d.InputOffset()+1, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("text after the object, at byte %d", d.InputOffset()+1)
	}
	if f.Train == nil || f.Test == nil {
		return nil, errors.New("no train or no test, want both in one object")
	}
	return f, nil
}

// set puts all users' examples one after the other.
func (p *leafPart) set() (s Set, owners []int32, err error) {
	s = Set{Targets: 1}
	if len(p.Users) != len(p.Data) {
		return s, nil, fmt.Errorf("%d users, and user_data of %d", len(p.Users), len(p.Data))
	}
	for i, name := range p.Users {
		u, ok := p.Data[name]
		if !ok {
			return s, nil, fmt.Errorf("user %s has no user_data", quoted(name))
		}
		if len(u.X) != len(u.Y) || len(p.Samples) > i && p.Samples[i] != len(u.Y) {
			return s, nil, fmt.Errorf("user %s: %d x and %d y, and num_samples %v", quoted(name), len(u.X), len(u.Y), p.Samples[i:min(i+1, len(p.Samples))])
		}
		for k, x := range u.X {
			if err := s.labelled(x, u.Y[k]); err != nil {
				return s, nil, fmt.Errorf("user %s: example %d: %w", quoted(name), k+1, err)
			}
			owners = append(owners, int32(i))
		}
	}
	if len(owners) == 0 {
		return s, nil, errors.New("no examples")
	}
	return s, owners, nil
}

// labelled appends an example, whose class may be the largest yet.
func (s *Set) labelled(x []float32, y float32) error {
	if s.Input == nil {
		s.Input = []int{len(x)}
	}
	switch {
	case len(x) != s.Input[0] || len(x) == 0:
		return fmt.Errorf("%d values, want %d", len(x), s.Input[0])
	case !isID(float64(y), 0):
		return fmt.Errorf("y is %v, want a class: a whole number from 0", y)
	case y >= maxClasses:
		return fmt.Errorf("y is %v, want fewer than %d classes", y, maxClasses)
	}
	s.X, s.Y, s.Classes = append(s.X, x...), append(s.Y, y), max(s.Classes, int(y)+1)
	return nil
}

// maxClasses is how many classes a file of classes by number may have.
const maxClasses = 1 << 16
