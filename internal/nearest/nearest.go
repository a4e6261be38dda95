// Package nearest finds the word that somebody meant, for messages about one that is not known.
package nearest

import "strings"

// Word is the known word with the least edit distance to a word, in any case of its letters; the first of several. It is
// empty where none is near enough to be meant: more than half of its letters would have to change. A word of at least three
// letters with which exactly one known word begins is that one, cut short.
func Word(word string, known []string) string {
	if whole := completed(word, known); whole != "" {
		return whole
	}
	best, least := "", (len(word)+1)/2+1
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	return best
}

// completed is the only known word that begins with a word of at least three letters; empty if there is none, or several.
func completed(word string, known []string) (whole string) {
	if len(word) < 3 {
		return ""
	}
	for _, k := range known {
		if !strings.HasPrefix(strings.ToLower(k), strings.ToLower(word)) {
			continue
		}
		if whole != "" {
			return ""
		}
		whole = k
	}
	return whole
}

// OneOf ends a message about a word that is not known: what was meant, if that can be told, and all there are.
func OneOf(word string, known []string) string {
	all := "want one of " + strings.Join(known, ", ")
	if best := Word(word, known); best != "" {
		return "did you mean " + best + "? " + all
	}
	return all
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
