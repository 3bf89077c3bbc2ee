"""When a scheduled run is due: rules over a timetable and what is remembered; no clock, no file."""
