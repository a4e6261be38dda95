package data

import (
	"errors"
	"fmt"
	"io"
)

// FashionMNIST reads Fashion-MNIST (Xiao et al. 2017), or any data set in its four files of a directory, with or without
// .gz: images of height × width × 1 with values pixel/255, in classes of 0 to 9.
func FashionMNIST(dir string) (train, test Set, err error) {
	if train, err = imageSet(dir, "train", 10); err != nil {
		return Set{}, Set{}, err
	}
	if test, err = imageSet(dir, "t10k", 10); err != nil {
		return Set{}, Set{}, err
	}
	if train.Input[0] != test.Input[0] || train.Input[1] != test.Input[1] {
		return Set{}, Set{}, fmt.Errorf("%s: images to learn from are %v, those to test with %v", dir, train.Input, test.Input)
	}
	return train, test, nil
}

// maxImageValues is how many pixels all images of a file may have: 2 GiB as float32.
const maxImageValues = 1 << 29

// imageSet reads the images and labels of one part.
func imageSet(dir, part string, classes int) (Set, error) {
	s := Set{Targets: 1, Classes: classes}
	err := readEither(dir, part+"-images-idx3-ubyte", func(_ string, r io.Reader) (err error) {
		x, err := openIDX("images", r, 0x803, 3)
		if err != nil {
			return err
		}
		s.Input = []int{x.size[1], x.size[2], 1}
		if x.size[0] < 1 || x.size[1] < 1 || x.size[2] < 1 || x.size[1] > maxPixels || x.size[2] > maxPixels || x.size[0] > maxImageValues/(x.size[1]*x.size[2]) {
			return fmt.Errorf("%d images of %d × %d pixels", x.size[0], x.size[1], x.size[2])
		}
		s.X, err = x.scaled(x.size[1]*x.size[2], 1./255)
		return err
	})
	if err != nil {
		return Set{}, err
	}
	images := len(s.X) / s.Values()
	err = readEither(dir, part+"-labels-idx1-ubyte", func(_ string, r io.Reader) (err error) {
		y, err := openIDX("labels", r, 0x801, 1)
		if err != nil {
			return err
		}
		if y.size[0] != images {
			return fmt.Errorf("%d labels for %d images", y.size[0], images)
		}
		if s.Y, err = y.scaled(1, 1); err != nil {
			return err
		}
		for i, v := range s.Y {
			if int(v) >= classes {
				return fmt.Errorf("label %d is %v, want 0 to %d", i+1, v, classes-1)
			}
		}
		return nil
	})
	return s, err
}

// believed is for how many values of a header's there is room before they come: those of MNIST, and what a file that lies
// can take of memory.
const believed = 1 << 26

// scaled reads all elements of so many bytes, times a factor.
func (f *idxFile) scaled(bytes int, factor float32) ([]float32, error) {
	out := make([]float32, 0, min(f.size[0]*bytes, believed))
	b := make([]byte, bytes)
	for n := 1; n <= f.size[0]; n++ {
		if err := f.read(b, n); err != nil {
			return nil, err
		}
		for _, v := range b {
			out = append(out, float32(v)*factor)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the file is empty")
	}
	return out, f.end()
}
