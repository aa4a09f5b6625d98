package deliver

import "time"

// rateBurst is how much of what a rate allows may be made up for at once, after a pause or a late wake-up.
const rateBurst = 50 * time.Millisecond

// spend notes that so many events go out now, or, below 0, that so many did not after all. The lane waits until the rate of its subscription has room for the next.
func (l *lane) spend(events int) {
	if l.sub.MaxRate > 0 {
		l.paced = later(l.paced, time.Now().Add(-rateBurst)).Add(time.Duration(events) * time.Second / time.Duration(l.sub.MaxRate))
	}
}

// held is until when nothing may be sent, whatever there is.
func (l *lane) held() time.Time { return later(l.hold, l.paced) }
