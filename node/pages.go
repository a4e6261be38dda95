package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt maps its file and follows what stands there: a flipped bit in a page's header or in the list of free pages can
// fault the process, send it round in circles, or make the next import overwrite rows. checkPages reads the file as
// bbolt lays it out, with every bound checked, and refuses one that bbolt should not be let at. What is in the values is
// not looked at: each is sealed and verifies itself when it is read.
func checkPages(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	c, root, free, err := newestMeta(f, uint64(info.Size()))
	if err != nil {
		return err
	}
	if err := c.bucket(root); err != nil {
		return err
	}
	if err := c.freelist(free); err != nil {
		return err
	}
	for id, seen := range c.seen {
		if !seen {
			return damagef("page %d is neither used nor free", id)
		}
	}
	return nil
}

// errDamaged is the class of everything that is wrong with a store's file.
var errDamaged = errors.New("the file is damaged")

func damagef(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
}

// Layout of a bbolt file (version 2), in the machine's byte order.
const (
	pageHeader  = 16 // id 8, flags 2, count 2, overflow 4
	pageElement = 16
	flagBranch  = 0x01
	flagLeaf    = 0x02
	flagFree    = 0x10
	metaBytes   = 64
	metaMagic   = 0xED0CDAED
)

type pageChecker struct {
	f    io.ReaderAt
	size uint64 // of a page
	seen []bool // by page
}

// newestMeta reads both meta pages and takes the one that bbolt takes.
func newestMeta(f io.ReaderAt, length uint64) (c *pageChecker, root, free uint64, err error) {
	var newest uint64
	for _, size := range []uint64{1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16} {
		for at := uint64(0); at <= size; at += size {
			m := make([]byte, metaBytes)
			if _, err := f.ReadAt(m, int64(at+pageHeader)); err != nil {
				continue
			}
			sum := fnv.New64a()
			sum.Write(m[:metaBytes-8])
			number := func(i int) uint64 { return binary.NativeEndian.Uint64(m[i:]) }
			high, tx := number(40), number(48)
			if binary.NativeEndian.Uint32(m) != metaMagic || number(56) != sum.Sum64() ||
				uint64(binary.NativeEndian.Uint32(m[8:])) != size || c != nil && tx <= newest {
				continue
			}
			if high < 3 || high > length/size {
				return nil, 0, 0, damagef("it has %d bytes, want %d pages of %d; it was cut", length, high, size)
			}
			c, root, free, newest = &pageChecker{f: f, size: size, seen: make([]bool, high)}, number(16), number(32), tx
			c.seen[0], c.seen[1] = true, true
		}
	}
	if c == nil {
		return nil, 0, 0, damagef("neither of its two first pages is valid")
	}
	return c, root, free, nil
}

// page reads a page that nothing else refers to, with its overflow.
func (c *pageChecker) page(id uint64) ([]byte, error) {
	high := uint64(len(c.seen))
	if id >= high {
		return nil, damagef("page %d of %d is referred to", id, high)
	}
	p := make([]byte, c.size)
	if _, err := c.f.ReadAt(p, int64(id*c.size)); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	more := uint64(binary.NativeEndian.Uint32(p[12:]))
	if binary.NativeEndian.Uint64(p) != id || more >= high-id {
		return nil, damagef("page %d is not what it should be", id)
	}
	for i := id; i <= id+more; i++ {
		if c.seen[i] {
			return nil, damagef("page %d is used twice", i)
		}
		c.seen[i] = true
	}
	if more == 0 {
		return p, nil
	}
	p = make([]byte, (1+more)*c.size)
	if _, err := c.f.ReadAt(p, int64(id*c.size)); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	return p, nil
}

func flags(page []byte) uint16 { return binary.NativeEndian.Uint16(page[8:]) }
func count(page []byte) int    { return int(binary.NativeEndian.Uint16(page[10:])) }

// bucket checks a tree from its root page.
func (c *pageChecker) bucket(root uint64) error {
	var last []byte
	return c.tree(root, nil, &last)
}

// tree checks a page and what is below it: keys from low on, above last, which is the largest so far, nil before the
// first.
func (c *pageChecker) tree(id uint64, low []byte, last *[]byte) error {
	p, err := c.page(id)
	if err != nil {
		return err
	}
	if flags(p) == flagLeaf {
		return c.leaf(p, low, last)
	}
	if flags(p) != flagBranch || count(p) == 0 {
		return damagef("page %d is of no kind that is known", id)
	}
	for i := range count(p) {
		key, err := keyOf(p, i, 0)
		if err != nil {
			return err
		}
		if bytes.Compare(key, low) < 0 || bytes.Compare(key, *last) <= 0 {
			return damagef("page %d is not in order", id)
		}
		if err := c.tree(binary.NativeEndian.Uint64(p[pageHeader+pageElement*i+8:]), key, last); err != nil {
			return err
		}
		if bytes.Compare(*last, key) < 0 {
			return damagef("page %d leads to an empty one", id)
		}
	}
	return nil
}

// leaf checks a leaf page, or the page of a small bucket, which lies in its parent.
func (c *pageChecker) leaf(p, low []byte, last *[]byte) error {
	for i := range count(p) {
		key, err := keyOf(p, i, 4)
		if err != nil {
			return err
		}
		if len(key) == 0 || bytes.Compare(key, low) < 0 || bytes.Compare(key, *last) <= 0 {
			return damagef("a key is not in order")
		}
		*last = key
		value, err := valueOf(p, i, len(key))
		if err != nil {
			return err
		}
		switch kind := binary.NativeEndian.Uint32(p[pageHeader+pageElement*i:]); kind {
		case 0:
		case 1:
			if err := c.nested(value); err != nil {
				return err
			}
		default:
			return damagef("a value is of kind %d", kind)
		}
	}
	return nil
}

// nested checks a bucket that a value describes.
func (c *pageChecker) nested(value []byte) error {
	if len(value) < 16 {
		return damagef("a bucket is cut")
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return c.bucket(root)
	}
	p := value[16:]
	if len(p) < pageHeader || flags(p) != flagLeaf {
		return damagef("a bucket is cut")
	}
	var last []byte
	return c.leaf(p, nil, &last)
}

// keyOf is the key of element i; its position and length stand side by side from an offset in the element.
func keyOf(p []byte, i, offset int) ([]byte, error) {
	e := pageHeader + pageElement*i
	if e+pageElement > len(p) {
		return nil, damagef("a page is cut")
	}
	at := uint64(e) + uint64(binary.NativeEndian.Uint32(p[e+offset:]))
	end := at + uint64(binary.NativeEndian.Uint32(p[e+offset+4:]))
	if end > uint64(len(p)) {
		return nil, damagef("a key lies outside its page")
	}
	return p[at:end], nil
}

// valueOf is what follows the key in a leaf.
func valueOf(p []byte, i, key int) ([]byte, error) {
	e := pageHeader + pageElement*i
	at := uint64(e) + uint64(binary.NativeEndian.Uint32(p[e+4:])) + uint64(key)
	end := at + uint64(binary.NativeEndian.Uint32(p[e+12:]))
	if end > uint64(len(p)) {
		return nil, damagef("a value lies outside its page")
	}
	return p[at:end], nil
}

// freelist checks the list of free pages: none of them is used.
func (c *pageChecker) freelist(id uint64) error {
	p, err := c.page(id)
	if err != nil {
		return err
	}
	ids, n := p[pageHeader:], uint64(count(p))
	if n == 0xFFFF { // the count did not fit
		n, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if flags(p) != flagFree || n > uint64(len(ids)/8) {
		return damagef("the list of free pages is cut")
	}
	for i := range n {
		free := binary.NativeEndian.Uint64(ids[8*i:])
		if free >= uint64(len(c.seen)) || c.seen[free] {
			return damagef("page %d is used and free", free)
		}
		c.seen[free] = true
	}
	return nil
}
