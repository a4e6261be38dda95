package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// hours is a span of the day in which a node trains: from the first hour up to, not including, the second. It may go
// over midnight. The zero value is the whole day.
type hours struct{ from, to int }

// parseHours reads a span such as "22-6"; the empty text is the whole day.
func parseHours(text string) (hours, error) {
	if text == "" {
		return hours{}, nil
	}
	var h hours
	var rest string
	n, _ := fmt.Sscanf(text+" ", "%d-%d%s", &h.from, &h.to, &rest)
	if n != 2 || h.from < 0 || h.from > 23 || h.to < 0 || h.to > 24 || h.from == h.to || strings.ContainsAny(text, "+ ") {
		return hours{}, errors.New(`want two different hours of the day such as "22-6"`)
	}
	return h, nil
}

// contains reports whether the time of day lies in the span.
func (h hours) contains(t time.Time) bool {
	if h == (hours{}) {
		return true
	}
	if h.from < h.to {
		return t.Hour() >= h.from && t.Hour() < h.to
	}
	return t.Hour() >= h.from || t.Hour() < h.to
}

// powerSupplies is where Linux says what the machine runs on.
const powerSupplies = "/sys/class/power_supply"

// onBattery reports whether the machine runs on a battery: one is discharging, and no mains supply is online. A machine
// that says nothing about its power is on power.
func onBattery(dir string) bool {
	entries, _ := os.ReadDir(dir)
	online, discharging := false, false
	for _, e := range entries {
		read := func(file string) string {
			b, _ := os.ReadFile(filepath.Join(dir, e.Name(), file))
			return strings.TrimSpace(string(b))
		}
		if read("scope") == "Device" { // of a mouse or the like
			continue
		}
		switch read("type") {
		case "Mains", "USB":
			online = online || read("online") == "1"
		case "Battery":
			discharging = discharging || read("status") == "Discharging"
		}
	}
	return discharging && !online
}

// rests is why the node takes no task now, empty if it does.
func (n *Node) rests() string {
	if h, _ := parseHours(n.cfg.Hours); !h.contains(n.deps.Now().Local()) {
		return fmt.Sprintf("it is outside this node's hours, %s", n.cfg.Hours)
	}
	if n.cfg.OnlyOnPower && onBattery(powerSupplies) {
		return "the machine runs on battery"
	}
	return ""
}
