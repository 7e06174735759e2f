#!/bin/sh
# What a sweep takes for the program: it trains nothing. What happens depends on the end of the folder's name.
#   broken.sh train --config FILE --out FOLDER ...
echo "$5" >> "$(dirname "$5")/calls"
case "$5" in
    *s1) echo "gumbel: it is broken" >&2; exit 1 ;;
    *s2) echo "gumbel: stopped at step 7" >&2; exit 130 ;;
    *s3) kill -9 $$ ;;
    *s4) exit 3 ;;
    *s5) sleep 1; echo "gumbel: it is slowly broken" >&2; exit 1 ;;
esac
