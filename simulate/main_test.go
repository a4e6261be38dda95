package simulate

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Whole federations wait, for elections and rounds, more than they compute: some run at once, unless -parallel says
// otherwise. Tests that measure time or memory run before them, one by one. What a federation starts ends with it: after all
// tests no goroutine is left.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "4"); err != nil { // the command line is read afterwards
		panic(err)
	}
	code := m.Run()
	if err := left(); err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: goroutines are left after all tests, the stacks say of which: %v\n", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// left finds goroutines that were not waited for. Memberlist's own ones end within a second.
func left() (err error) {
	for range 6 { // Find itself waits for about a second
		if err = goleak.Find(); err == nil {
			return nil
		}
	}
	return err
}
