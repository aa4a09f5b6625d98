package httpapi

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"time"
	"unicode/utf8"

	"github.com/eventhose/eventhose"
)

// The plain shape of an event, which is nearly all that comes in, is read here without tokens: names and strings
// without escapes, data of any kind. Whatever else it meets (an error too) makes scanner give up, and reader, which knows
// everything and writes the errors, reads the body from its beginning. So scanner may refuse what it likes, and must
// accept nothing that reader refuses: data that is not JSON, a name twice in any object, invalid UTF-8. FuzzScan
// holds the two against each other.

const (
	scanDepth = 64  // nesting inside data
	scanNames = 128 // in one object; they are compared one by one when their hashes meet
)

type scanner struct {
	b     []byte
	at    int
	depth int
	// names are those of the objects that at is in, the outer ones first.
	names []scanName
	// typ is the type before, which is most often the next one's too.
	typ string
}

type scanName struct {
	hash       uint64
	start, end int
}

var scanSeed = maphash.MakeSeed()

// scanEvents reads an array of events, or one; ok is false if that is reader's to do.
func scanEvents(body []byte) (events []eventhose.Event, many, ok bool) {
	s := scanner{b: body}
	switch s.space() {
	case '{':
		events = make([]eventhose.Event, 1)
		ok = s.event(&events[0])
	case '[':
		many = true
		events, ok = s.events()
	}
	if !ok || s.space() != 0 || s.at != len(body) {
		return nil, false, false
	}
	return events, many, true
}

func (s *scanner) events() (events []eventhose.Event, ok bool) {
	s.at++
	for {
		if s.space() != '{' || len(events) == eventhose.MaxAppend {
			return nil, false
		}
		start := s.at
		events = append(events, eventhose.Event{})
		if !s.event(&events[len(events)-1]) {
			return nil, false
		}
		if len(events) == 1 { // the others are likely as long
			more := min(len(s.b)/(s.at-start), eventhose.MaxAppend)
			events = append(make([]eventhose.Event, 0, more+1), events...)
		}
		switch s.space() {
		case ',':
			s.at++
		case ']':
			s.at++
			return events, true
		default:
			return nil, false
		}
	}
}

// scanLine reads one event that is all of a line.
func (s *scanner) line(line []byte, e *eventhose.Event) bool {
	s.b, s.at, s.depth, s.names = line, 0, 0, s.names[:0]
	return s.space() == '{' && s.event(e) && s.at == len(line)
}

// space answers the next byte that is not white space, 0 at the end.
func (s *scanner) space() byte {
	for s.at < len(s.b) {
		switch c := s.b[s.at]; c {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return c
		}
	}
	return 0
}

// event reads an event and checks it whole; it stands at the brace.
func (s *scanner) event(e *eventhose.Event) bool {
	const (
		seenType = 1 << iota
		seenID
		seenKey
		seenVersion
		seenTime
		seenContentType
		seenAttributes
		seenData
	)
	seen, first := 0, true
	once := func(field int) bool {
		was := seen&field != 0
		seen |= field
		return !was
	}
	s.at++
	for {
		c := s.space()
		if c == '}' && !first {
			s.at++
			break
		}
		if !first {
			if c != ',' {
				return false
			}
			s.at++
			s.space()
		}
		first = false
		name, ok := s.plain()
		if !ok || s.space() != ':' {
			return false
		}
		s.at++
		s.space()
		switch string(name) {
		case "type":
			ok = once(seenType)
			if text, plain := s.plain(); !plain {
				ok = false
			} else if string(text) != s.typ {
				s.typ = string(text)
			}
			e.Type = s.typ
		case "id":
			ok = once(seenID) && s.text(&e.ID) && e.ID != ""
		case "key":
			ok = once(seenKey) && s.text(&e.Key)
		case "version":
			ok = once(seenVersion) && s.text(&e.Version)
		case "content_type":
			ok = once(seenContentType) && s.text(&e.ContentType)
		case "time":
			var text string
			if ok = once(seenTime) && s.text(&text); ok {
				var err error
				e.Time, err = time.Parse(time.RFC3339Nano, text)
				ok = err == nil
			}
		case "attributes":
			ok = once(seenAttributes) && s.attributes(e)
		case "data":
			start := s.at
			ok = once(seenData) && s.value()
			e.Data = s.b[start:s.at:s.at]
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	return seen&seenData != 0 && e.JSON() && (&reader{}).check(e) == nil
}

func (s *scanner) attributes(e *eventhose.Event) bool {
	if s.at == len(s.b) || s.b[s.at] != '{' {
		return false
	}
	for {
		s.at++
		if s.space() == '}' && e.Attributes == nil {
			s.at++
			return true
		}
		name, ok := s.plain()
		if !ok || s.space() != ':' {
			return false
		}
		s.at++
		s.space()
		var value string
		if !s.text(&value) {
			return false
		}
		if e.Attributes == nil {
			e.Attributes = map[string]string{}
		} else if _, twice := e.Attributes[string(name)]; twice {
			return false
		}
		e.Attributes[string(name)] = value
		switch s.space() {
		case ',':
		case '}':
			s.at++
			return true
		default:
			return false
		}
	}
}

// text reads a string without escapes into field.
func (s *scanner) text(field *string) bool {
	b, ok := s.plain()
	*field = string(b)
	return ok
}

// plain reads a string without escapes and answers what is between the quotes.
func (s *scanner) plain() ([]byte, bool) {
	if s.at == len(s.b) || s.b[s.at] != '"' {
		return nil, false
	}
	start := s.at + 1
	end := start + plainLength(s.b[start:])
	for end < len(s.b) && s.b[end] >= utf8.RuneSelf {
		r, n := utf8.DecodeRune(s.b[end:])
		if r == utf8.RuneError && n == 1 {
			return nil, false
		}
		end += n
		end += plainLength(s.b[end:])
	}
	if end == len(s.b) || s.b[end] != '"' {
		return nil, false
	}
	s.at = end + 1
	return s.b[start:end], true
}

// plainLength answers how many bytes stand before the first that is a quote, a backslash, a control character or not ASCII.
func plainLength(b []byte) (n int) {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for ; len(b)-n >= 8; n += 8 {
		w := binary.LittleEndian.Uint64(b[n:])
		quote, back := w^ones*'"', w^ones*'\\'
		// The lowest mark is right; those above it may be borrowed.
		if marks := (w | (w - ones*0x20) | (quote - ones) | (back - ones)) & high; marks != 0 {
			return n + bits.TrailingZeros64(marks)/8
		}
	}
	for n < len(b) && b[n] >= 0x20 && b[n] < utf8.RuneSelf && b[n] != '"' && b[n] != '\\' {
		n++
	}
	return n
}

// value steps over one value.
func (s *scanner) value() bool {
	if s.at == len(s.b) {
		return false
	}
	switch c := s.b[s.at]; {
	case c == '"':
		return s.str()
	case c == '{':
		return s.object()
	case c == '[':
		return s.array()
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	}
	return s.number()
}

func (s *scanner) literal(word string) bool {
	if len(s.b)-s.at < len(word) || string(s.b[s.at:s.at+len(word)]) != word {
		return false
	}
	s.at += len(word)
	return true
}

func (s *scanner) digits() bool {
	start := s.at
	for s.at < len(s.b) && s.b[s.at]-'0' <= 9 {
		s.at++
	}
	return s.at > start
}

func (s *scanner) next(c byte) bool {
	if s.at < len(s.b) && s.b[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *scanner) number() bool {
	s.next('-')
	if !s.next('0') && !s.digits() {
		return false
	}
	if s.next('.') && !s.digits() {
		return false
	}
	if s.next('e') || s.next('E') {
		if !s.next('-') {
			s.next('+')
		}
		return s.digits()
	}
	return true
}

// str steps over a string with or without escapes.
func (s *scanner) str() bool {
	s.at++
	for s.at < len(s.b) {
		s.at += plainLength(s.b[s.at:])
		if s.at == len(s.b) {
			return false
		}
		switch c := s.b[s.at]; {
		case c == '"':
			s.at++
			return true
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRune(s.b[s.at:])
			if r == utf8.RuneError && n == 1 {
				return false
			}
			s.at += n
		case c != '\\' || !s.escape():
			return false
		}
	}
	return false
}

// escape steps over one that stands for a character by itself; surrogates are reader's.
func (s *scanner) escape() bool {
	if s.at+1 >= len(s.b) {
		return false
	}
	switch s.b[s.at+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.at += 2
		return true
	case 'u':
		if s.at+6 > len(s.b) {
			return false
		}
		r := 0
		for _, c := range s.b[s.at+2 : s.at+6] {
			switch {
			case c-'0' <= 9:
				r = r<<4 | int(c-'0')
			case c|0x20 >= 'a' && c|0x20 <= 'f':
				r = r<<4 | int(c|0x20-'a'+10)
			default:
				return false
			}
		}
		s.at += 6
		return r < 0xd800 || r > 0xdfff
	}
	return false
}

func (s *scanner) array() bool {
	if s.depth++; s.depth > scanDepth {
		return false
	}
	s.at++
	if s.space() != ']' {
		for {
			if !s.value() {
				return false
			}
			if s.space() != ',' {
				break
			}
			s.at++
			s.space()
		}
	}
	s.depth--
	return s.next(']')
}

func (s *scanner) object() bool {
	if s.depth++; s.depth > scanDepth {
		return false
	}
	s.at++
	own := len(s.names)
	var known [4]uint64 // a bit for the hash of each name: most names are new, and that says so
	if s.space() != '}' {
		for {
			start := s.at + 1
			name, ok := s.plain()
			if !ok || len(s.names)-own == scanNames {
				return false
			}
			h := maphash.Bytes(scanSeed, name)
			word, bit := &known[h>>6&3], uint64(1)<<(h&63)
			if *word&bit != 0 {
				for _, other := range s.names[own:] {
					if other.hash == h && string(s.b[other.start:other.end]) == string(name) {
						return false
					}
				}
			}
			*word |= bit
			s.names = append(s.names, scanName{h, start, start + len(name)})
			if s.space() != ':' {
				return false
			}
			s.at++
			s.space()
			if !s.value() {
				return false
			}
			if s.space() != ',' {
				break
			}
			s.at++
			s.space()
		}
	}
	s.names = s.names[:own]
	s.depth--
	return s.next('}')
}
