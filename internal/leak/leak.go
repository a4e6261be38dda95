// Package leak runs the tests of packages that start much at once, and sees that nothing which they started is left.
package leak

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

// Main runs the tests of a package, so many of the parallel ones at a time unless -parallel says otherwise, and then looks for
// goroutines that are left. It is what a package's TestMain calls, and does not return.
func Main(m *testing.M, parallel int) {
	if err := flag.Set("test.parallel", strconv.Itoa(parallel)); err != nil { // the command line is read afterwards
		panic(err)
	}
	code := m.Run()
	if err := left(); err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: goroutines are left after all tests, the stacks say of which: %v\n", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// left finds goroutines that were not waited for. Memberlist's own ones end with their probe: within a second, or several
// when many have failed.
func left() (err error) {
	for range 12 { // Find itself waits for about a second
		if err = goleak.Find(); err == nil {
			return nil
		}
	}
	return err
}
